"""Feed the images of a source: repeat a file, reopen a live source."""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Literal

from broker_bridge.common.retry import Backoff

from .sources import CameraError, Image, Source

_log = logging.getLogger(__name__)
_REOPENING = Backoff(base=0.5, cap=30.0)
_STALL_SECONDS = 5.0
# Single damaged images are normal; after this many in a row, or this long, the source is lost.
_FAILED_READS = 5
_FAILING_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


class FileFeed:
    """The images of a file or folder, repeated with `loop`."""

    state: Literal["ok", "reopening"] = "ok"
    reopened = 0

    def __init__(self, name: str, opener: Callable[[], Source], *, loop: bool) -> None:
        self._name = name
        self._opener = opener
        self._loop = loop
        self._corrupt_before = 0
        self._source = opener()
        self.fps = self._source.fps

    @property
    def corrupt(self) -> int:
        return self._corrupt_before + self._source.corrupt

    def images(self) -> Iterator[Image]:
        """Yield the images. Raises CameraError when a round has none that can be read."""
        while True:
            seen = False
            while (image := self._source.read()) is not None:
                seen = True
                yield image
            if not seen:
                raise CameraError(f"{self._name} has no image that can be read")
            if not self._loop:
                return
            self._source.close()
            again = self._opener()
            self._corrupt_before += self._source.corrupt
            self._source = again

    def close(self) -> None:
        self._source.close()


class LiveFeed:
    """The images of a live source, which is reopened with backoff after a loss.

    With `at_once` the constructor opens it and raises a failure; otherwise `images` opens it and waits.
    """

    fps = 0.0
    """Unknown: images come at the rate of the source."""

    def __init__(
        self,
        name: str,
        opener: Callable[[], Source],
        *,
        at_once: bool,
        stopped: threading.Event,
        clock: Callable[[], float],
        wait: Callable[[float], object],
        jitter: random.Random,
    ) -> None:
        self.reopened = 0
        self._name = name
        self._opener = opener
        self._stopped = stopped
        self._clock = clock
        self._wait = wait
        self._jitter = jitter
        self._seen = False
        self._attempts = 0
        self._asked_at: float | None = None
        self._corrupt_before = 0
        self._source = opener() if at_once else None
        self._state: Literal["ok", "reopening"] = "ok" if at_once else "reopening"

    @property
    def state(self) -> Literal["ok", "reopening"]:
        """`reopening` while the source is lost, and after five seconds without an answer."""
        asked_at = self._asked_at
        stalled = asked_at is not None and self._clock() - asked_at > _STALL_SECONDS
        return "reopening" if stalled else self._state

    @property
    def corrupt(self) -> int:
        source = self._source
        return self._corrupt_before + (source.corrupt if source else 0)

    def images(self) -> Iterator[Image]:
        """Yield images until the camera is stopped."""
        while not self._stopped.is_set():
            if self._source is None:
                self._open_again()
                continue
            image = self._read(self._source)
            if image is not None:
                self._note_picture()
                yield image
            elif not self._stopped.is_set():
                self._lose()

    def close(self) -> None:
        self._asked_at = None
        if self._source:
            self._corrupt_before += self._source.corrupt
            self._source.close()
            self._source = None

    def _read(self, source: Source) -> Image | None:
        """Return the next image, skipping a few damaged ones; None after a loss or a stop."""
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
            _log.info("camera opened camera=%r attempts=%d", self._name, self._attempts)
            self.reopened += self._seen
        self._state = "ok"
        self._seen = True
        self._attempts = 0

    def _lose(self) -> None:
        if self._state == "ok":
            _log.warning("camera lost; reopening camera=%r", self._name)
        self._state = "reopening"
        self._attempts = max(1, self._attempts)
        # Closed before it is reopened: an open device would be busy.
        self.close()

    def _open_again(self) -> None:
        if self._attempts:
            self._wait(_REOPENING.delay(self._attempts, self._jitter))
            if self._stopped.is_set():
                return
        self._attempts += 1
        try:
            self._source = self._opener()
        except CameraError as error:
            if self._attempts == 1:
                _log.warning("camera cannot be opened; retrying error=%r", str(error))
