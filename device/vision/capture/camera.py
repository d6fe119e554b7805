"""The camera: paced frames from any source.

A live source is reopened. Any thread may stop the camera.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from .feeds import FileFeed, LiveFeed
from .sources import CameraError, Image, Source, describe, is_live, open_source

__all__ = ["Camera", "CameraError", "CameraState", "Frame", "open_camera"]

CameraState = Literal["ok", "reopening", "ended"]


@dataclass(frozen=True)
class Frame:
    """One image of a camera: `image` is uint8[h, w, 3] BGR.

    `index` rises over loops and reopenings; `captured_at` is in seconds of the camera's monotonic clock.
    """

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

    `corrupt` counts images that could not be decoded, `reopened` the reopenings of a live source. Any thread
    may call `stop` and read the counts; one thread iterates and closes.
    """

    def __init__(
        self,
        name: str,
        feed: FileFeed | LiveFeed,
        *,
        fps: float | None,
        stopped: threading.Event,
        clock: Callable[[], float],
        wait: Callable[[float], object],
    ) -> None:
        self.name = name
        self.live = isinstance(feed, LiveFeed)
        self._feed = feed
        fps = feed.fps if fps is None else fps
        self._period = 1.0 / fps if fps > 0 else 0.0
        self._stopped = stopped
        self._clock = clock
        self._wait = wait
        self._ended = False

    @property
    def state(self) -> CameraState:
        """`reopening` while a live source is lost or silent for 5 s, `ended` at the end."""
        return "ended" if self._ended else self._feed.state

    @property
    def corrupt(self) -> int:
        return self._feed.corrupt

    @property
    def reopened(self) -> int:
        return self._feed.reopened

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._feed.close()

    def stop(self) -> None:
        """End the iteration promptly; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        images = self._feed.images()
        selected = self._thinned(images) if self.live else self._paced(images)
        for index, image in enumerate(selected):
            if self._stopped.is_set():
                break
            yield self._frame(image, index)
        self._ended = True

    def _frame(self, image: Image, index: int) -> Frame:
        try:
            return Frame(image, index, self._clock())
        except ValueError as error:
            raise CameraError(f"{self.name}: {error}: have the camera or its pipeline give BGR") from error

    def _paced(self, images: Iterator[Image]) -> Iterator[Image]:
        """Yield a file's images at its own rate; a slow device gets slow motion, not gaps."""
        due = self._clock()
        for image in images:
            now = self._clock()
            if now < due:
                self._wait(due - now)
            due = max(due, now) + self._period
            yield image

    def _thinned(self, images: Iterator[Image]) -> Iterator[Image]:
        """Yield a live source's images at `fps` at most.

        Early images are dropped, not delayed.
        """
        period, due = self._period, -math.inf
        for image in images:
            now = self._clock()
            # A quarter of a period early is in time: at the camera's own rate, jitter must drop no image.
            if now < due - period / 4:
                continue
            due = period + (now if now - due > period else due)
            yield image


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
    """Open the camera of `source`.

    `source` is an index ("0"), a video file, a folder of images, an `rtsp://` URL or a GStreamer pipeline
    (text with " ! "). Files and folders are paced at their own rate, live sources are not; `fps` overrides
    both, and 0 means as fast as possible. `loop` repeats a file or folder. With `wait_for_live` the iteration
    opens a live source and retries until that succeeds. Tests replace `clock`, `wait` (sleeps that many
    seconds), `opener` and `jitter`.

    Raises CameraError with one sentence, never with a password in it.
    """
    name = describe(source)
    stopped = threading.Event()
    wait = wait or stopped.wait
    open_it = partial(opener, source)
    feed: FileFeed | LiveFeed
    if not is_live(source):
        feed = FileFeed(name, open_it, loop=loop)
    elif loop:
        raise CameraError(f"{name} is live and cannot be repeated: use loop with files only")
    else:
        jitter = jitter or random.Random()  # noqa: S311  # spreads reconnects, is no secret
        feed = LiveFeed(
            name, open_it, at_once=not wait_for_live, stopped=stopped, clock=clock, wait=wait, jitter=jitter
        )
    return Camera(name, feed, fps=fps, stopped=stopped, clock=clock, wait=wait)
