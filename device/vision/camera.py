"""A camera: paced frames from any source, reopened when a live source fails, stopped from any thread."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .sources import CameraError, Image, Source, describe, is_live, open_source

__all__ = ["Camera", "CameraError", "Frame", "open_camera"]

_log = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class Frame:
    """One picture: `image` uint8[h, w, 3] BGR, `index` rising over loops and reopenings, `captured_at` in
    seconds of the camera's monotonic clock."""

    image: Image
    index: int
    captured_at: float

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"a frame is uint8[h, w, 3], this one is {self.image.dtype}{list(self.image.shape)}"
            )


class Camera:
    """An iterator of frames and a context manager that closes the source.

    `state` is `ok`, `reopening` (a live source is gone) or `ended`; `skipped` counts pictures that could not
    be decoded, `reopened` how often a live source came back.
    """

    def __init__(
        self,
        source: str,
        *,
        loop: bool,
        fps: float | None,
        clock: Callable[[], float],
        wait: Callable[[float], object] | None,
        opener: Callable[[str], Source],
    ) -> None:
        self.name = describe(source)
        self.state: Literal["ok", "reopening", "ended"] = "ok"
        self.reopened = 0
        self._skipped_before = 0
        self._seen = False
        self._source_text = source
        self._loop = loop
        self._clock = clock
        self._opener = opener
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._source = opener(source)
        if fps is None:
            fps = 0.0 if self._source.live else self._source.fps
        self._period = 1.0 / fps if fps > 0 else 0.0

    @property
    def skipped(self) -> int:
        return self._skipped_before + self._source.skipped

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._source.close()

    def stop(self) -> None:
        """End the iteration promptly; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        due = self._clock()
        index = 0
        while (image := self._next_image()) is not None:
            now = self._clock()
            if self._period and now < due:
                self._wait(due - now)
                if self._stopped.is_set():
                    break
            # Frames that come late are not made up for: a slow device sees the file in slow motion.
            due = max(due, now) + self._period
            yield Frame(image, index, self._clock())
            index += 1
        self.state = "ended"

    def _next_image(self) -> Image | None:
        """The next picture, over the end of a looped file and the failure of a live source; None: over."""
        fresh = not self._seen
        while not self._stopped.is_set():
            image = self._source.read()
            if image is not None:
                self.state = "ok"
                self._seen = True
                return image
            if self._source.live:
                self._reopen_live()
                continue
            if fresh:
                raise CameraError(f"{self.name} has no picture that can be read")
            if not self._loop:
                return None
            self._replace_source(self._opener(self._source_text))
            fresh = True
        return None

    def _reopen_live(self) -> None:
        self.state = "reopening"
        _log.warning("%s is gone, opening it again", self.name)
        delay = _FIRST_RETRY_SECONDS
        while not self._stopped.is_set():
            self._wait(delay)
            if self._stopped.is_set():
                return
            try:
                self._replace_source(self._opener(self._source_text))
            except CameraError:
                delay = min(2 * delay, _LONGEST_RETRY_SECONDS)
                continue
            self.reopened += 1
            return

    def _replace_source(self, source: Source) -> None:
        self._skipped_before += self._source.skipped
        self._source.close()
        self._source = source


def open_camera(
    source: str,
    *,
    loop: bool = False,
    fps: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
    opener: Callable[[str], Source] = open_source,
) -> Camera:
    """The camera behind `source`: an index ("0"), a video file, a folder of pictures, an `rtsp://` URL or a
    GStreamer pipeline (text with " ! ").

    Files and folders are paced at their own rate, live sources come as they come; `fps` overrides that and
    0 means as fast as possible. `loop` repeats a file or folder. `clock`, `wait` (sleeps that many seconds)
    and `opener` are there to be replaced. Raises CameraError with one sentence, never with a password in it.
    """
    if loop and is_live(source):
        raise CameraError(f"{describe(source)} is live and cannot be repeated: use loop with files only")
    return Camera(source, loop=loop, fps=fps, clock=clock, wait=wait, opener=opener)
