"""Read the camera on a thread of its own and keep its newest frame."""

import logging
import threading
from collections.abc import Iterator

from .camera import Camera, CameraState, Frame

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 2.0


class NewestFrame:
    """The newest frame of a camera, for one consumer thread.

    It is a context manager that owns the camera.

    A live camera is read at its own rate into one slot, so a frame is at most one frame period old when
    it is taken. A frame that was not taken in time is stale: dropped and counted. A file or folder loses
    nothing: it waits until its frame is taken.
    """

    def __init__(self, camera: Camera, *, close_seconds: float = _CLOSE_SECONDS) -> None:
        self._camera = camera
        self._close_seconds = close_seconds
        self._slot: Frame | None = None
        self._seen = 0
        self._stale = 0
        self._stopped = False
        self._ended = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        # A daemon: a read that blocks in a driver must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)

    @property
    def state(self) -> CameraState:
        return self._camera.state

    @property
    def counts(self) -> dict[str, int]:
        """Counts since the start.

        Frames `seen` and of those `stale`, `corrupt` images, and times that the camera was `reopened`.
        """
        with self._changed:
            seen, stale = self._seen, self._stale
        return {
            "seen": seen,
            "stale": stale,
            "corrupt": self._camera.corrupt,
            "reopened": self._camera.reopened,
        }

    def __enter__(self) -> "NewestFrame":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            _log.warning("camera does not stop; its thread is abandoned camera=%r", self._camera.name)

    def stop(self) -> None:
        """End the iteration promptly, also during a read; for any thread."""
        self._camera.stop()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame. Raises the error that ended the camera, if any."""
        while (frame := self._take()) is not None:
            yield frame
        if self._failure is not None and not self._stopped:
            raise self._failure

    def _take(self) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._slot is not None or self._ended or self._stopped)
            frame, self._slot = self._slot, None
            self._changed.notify_all()
            return None if self._stopped else frame

    def _read(self) -> None:
        try:
            # Closed by its reader: releasing a camera during another thread's read crashes OpenCV.
            with self._camera:
                for frame in self._camera:
                    if not self._offer(frame):
                        break
        except Exception as error:  # noqa: BLE001  # raised again by __iter__
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _offer(self, frame: Frame) -> bool:
        """Put `frame` into the slot; return False after a stop."""
        with self._changed:
            if self._stopped:
                return False
            self._seen += 1
            self._stale += self._slot is not None
            self._slot = frame
            self._changed.notify_all()
            if not self._camera.live:
                self._changed.wait_for(lambda: self._slot is None or self._stopped)
            return not self._stopped
