"""A camera: paced frames from any source, reopened when a live source fails, stopped from any thread."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from device.backoff import Backoff

from .sources import CameraError, Image, Source, describe, is_live, open_source

__all__ = ["Camera", "CameraError", "CameraState", "Frame", "open_camera"]

CameraState = Literal["ok", "reopening", "ended"]

_log = logging.getLogger(__name__)
_REOPENING = Backoff(base=0.5, cap=30.0)
_STALL_SECONDS = 5.0
# A camera may send a damaged picture now and then; this many in a row, or for so long, and it is gone.
_FAILED_READS = 5
_FAILING_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


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

    `corrupt` counts pictures that could not be decoded, `reopened` how often a live source came back.
    `stop` and the counts are for any thread, iterating and closing for one.
    """

    def __init__(
        self,
        source: str,
        *,
        loop: bool,
        fps: float | None,
        wait_for_live: bool,
        clock: Callable[[], float],
        wait: Callable[[float], object] | None,
        opener: Callable[[str], Source],
        jitter: random.Random,
    ) -> None:
        self.name = describe(source)
        self.live = is_live(source)
        self.reopened = 0
        self._source_text = source
        self._loop = loop
        self._fps = fps
        self._clock = clock
        self._opener = opener
        self._jitter = jitter
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._seen = False
        self._attempts = 0
        self._asked_at: float | None = None
        self._corrupt_before = 0
        self._source = None if self.live and wait_for_live else opener(source)
        self._state: CameraState = "ok" if self._source else "reopening"

    @property
    def state(self) -> CameraState:
        """`reopening` while a live source is away or has not answered for 5 s, `ended` at the end."""
        asked_at = self._asked_at
        if asked_at is not None and self._clock() - asked_at > _STALL_SECONDS and self._state == "ok":
            return "reopening"
        return self._state

    @property
    def corrupt(self) -> int:
        source = self._source
        return self._corrupt_before + (source.corrupt if source else 0)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._close_source()

    def stop(self) -> None:
        """End the iteration promptly; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        images = self._live_images() if self.live else self._file_images()
        for index, image in enumerate(self._thinned(images) if self.live else self._paced(images)):
            yield Frame(image, index, self._clock())
        self._state = "ended"

    def _paced(self, images: Iterator[Image]) -> Iterator[Image]:
        """A file at its own rate. Late frames are not made up for: a slow device sees it in slow motion."""
        due = self._clock()
        for image in images:
            now = self._clock()
            if now < due:
                self._wait(due - now)
                if self._stopped.is_set():
                    return
            due = max(due, now) + self._period()
            yield image

    def _thinned(self, images: Iterator[Image]) -> Iterator[Image]:
        """A live source at most at `fps`: what comes too early is left out, since waiting would age it."""
        period = self._period()
        due = -math.inf
        for image in images:
            now = self._clock()
            # A quarter of a period early is in time: at the camera's own rate none must go for its jitter.
            if now < due - period / 4:
                continue
            due = period + (now if now - due > period else due)
            yield image

    def _period(self) -> float:
        """Seconds between frames; 0 means as they come."""
        fps = self._fps
        if fps is None:
            fps = self._source.fps if self._source and not self.live else 0.0
        return 1.0 / fps if fps > 0 else 0.0

    def _file_images(self) -> Iterator[Image]:
        while not self._stopped.is_set():
            image = self._source.read() if self._source else None
            if image is None and self._seen and self._loop:
                self._close_source()
                self._source = self._opener(self._source_text)
                image = self._source.read()
            if image is None:
                if self._loop or not self._seen:
                    raise CameraError(f"{self.name} has no picture that can be read")
                return
            self._seen = True
            yield image

    def _live_images(self) -> Iterator[Image]:
        while not self._stopped.is_set():
            if self._source is None:
                self._open_again()
                continue
            image = self._read_live(self._source)
            if image is not None:
                self._note_picture()
                yield image
            elif not self._stopped.is_set():
                self._lose()

    def _read_live(self, source: Source) -> Image | None:
        """The next picture over a few damaged ones; None when the source is gone or the camera stopped."""
        self._asked_at = asked_at = self._clock()
        failed = 0
        while not self._stopped.is_set():
            image = source.read()
            if image is not None:
                self._asked_at = None
                self._corrupt_before += failed
                return image
            failed += 1
            if failed >= _FAILED_READS or self._clock() - asked_at > _FAILING_SECONDS:
                break
            self._wait(_PAUSE_SECONDS)
        return None

    def _note_picture(self) -> None:
        if self._state == "reopening":
            _log.info("%s is there after %d tries", self.name, self._attempts)
            self.reopened += self._seen
        self._state = "ok"
        self._seen = True
        self._attempts = 0

    def _lose(self) -> None:
        if self._state == "ok":
            _log.warning("%s is gone, opening it again", self.name)
        self._state = "reopening"
        self._attempts = max(1, self._attempts)
        # Before it is opened again: a device that is still held would be busy.
        self._close_source()

    def _open_again(self) -> None:
        if self._attempts:
            self._wait(_REOPENING.delay(self._attempts, self._jitter))
            if self._stopped.is_set():
                return
        self._attempts += 1
        try:
            self._source = self._opener(self._source_text)
        except CameraError as error:
            if self._attempts == 1:
                _log.warning("%s; it is tried again until it is there", error)

    def _close_source(self) -> None:
        self._asked_at = None
        if self._source:
            self._corrupt_before += self._source.corrupt
            self._source.close()
            self._source = None


def open_camera(
    source: str,
    *,
    loop: bool = False,
    fps: float | None = None,
    wait_for_live: bool = False,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
    opener: Callable[[str], Source] = open_source,
    jitter: random.Random | None = None,
) -> Camera:
    """The camera behind `source`: an index ("0"), a video file, a folder of pictures, an `rtsp://` URL or a
    GStreamer pipeline (text with " ! ").

    Files and folders are paced at their own rate, live sources come as they come; `fps` overrides that, and
    0 means as fast as possible. `loop` repeats a file or folder. With `wait_for_live` a live source is opened
    when iterated, and tried again until it is there. `clock`, `wait` (sleeps that many seconds), `opener` and
    `jitter` are there to be replaced. Raises CameraError with one sentence, never with a password in it.
    """
    if loop and is_live(source):
        raise CameraError(f"{describe(source)} is live and cannot be repeated: use loop with files only")
    return Camera(
        source,
        loop=loop,
        fps=fps,
        wait_for_live=wait_for_live,
        clock=clock,
        wait=wait,
        opener=opener,
        jitter=jitter or random.Random(),  # noqa: S311  # spreads a fleet, keeps no secret
    )
