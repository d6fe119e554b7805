"""When to ask for changes: one request at a time, spread over a fleet, repeated while unanswered."""

import logging
import random
import secrets
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from broker_bridge.common.retry import Backoff
from broker_bridge.contract import channels
from broker_bridge.contract.messages import SyncRequest
from device.mqtt.link import Link
from device.store.cursor import SyncCursor

from .gallery_state import GalleryState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyncOptions:
    """Times in seconds. `jitter` spreads a fleet's requests, `grace` waits for the retained head. That speaks
    for the registry to a device that has had its own word within `fresh`: longer than the periodic sync."""

    limit: int = 200
    jitter: float = 0.5
    grace: float = 0.5
    fresh: float = 1200.0
    retry: Backoff = field(default_factory=lambda: Backoff(base=5.0, cap=300.0))
    drift_pause: Backoff = field(default_factory=lambda: Backoff(base=60.0, cap=3600.0))


@dataclass(frozen=True)
class _ScheduledRequest:
    """A request to send at `at`, unless the gallery has come to `unless` (epoch, version) by then."""

    at: float
    unless: tuple[str, int] | None


@dataclass(frozen=True)
class _OpenRequest:
    request: SyncRequest
    sent: int
    repeat_at: float


class DriftPause:
    """Keeps drift that stays from making a device fetch everything in a circle."""

    def __init__(self, pause: Backoff, source: random.Random) -> None:
        self._pause = pause
        self._random = source
        self._in_a_row = 0
        self._not_before = float("-inf")

    def may_mend(self, now: float) -> bool:
        """Whether a full resync may begin, which then counts as begun."""
        if now < self._not_before:
            return False
        self._in_a_row += 1
        self._not_before = now + self._pause.delay(self._in_a_row, self._random)
        return True

    def is_over(self) -> None:
        self._in_a_row = 0


class SyncRequests:
    """The request that is open and the one that is wished for.

    `from_zero` makes the next one ask for all; `asked_at` is where the gallery stood at the last one.
    """

    def __init__(
        self, link: Link, gallery: GalleryState, device_id: str, options: SyncOptions, source: random.Random
    ) -> None:
        self._link = link
        self._gallery = gallery
        self._device_id = device_id
        self._options = options
        self._random = source
        self._open: _OpenRequest | None = None
        self._wish: _ScheduledRequest | None = None
        self._asked: list[Future[None]] = []
        self._failures = 0
        self.from_zero = False
        self.asked_at = gallery.cursor
        self.counts: Counter[str] = Counter()

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def restart(self) -> None:
        """A new connection: what was asked on the old one gets no answer."""
        self._open = self._wish = None

    def wish(self, now: float, delay: float, unless: tuple[str, int] | None = None) -> None:
        """Ask in `delay` seconds or at an earlier wish; `unless` makes it void once the gallery is there."""
        at = now + delay
        if self._wish is not None:
            at = min(at, self._wish.at)
            unless = unless if self._wish.unless == unless else None
        self._wish = _ScheduledRequest(at, unless)

    def ask(self, now: float, asked: "Future[None]") -> None:
        """Ask at once for somebody who waits for `asked`, or has cancelled it."""
        self._asked = [*(one for one in self._asked if not one.cancelled()), asked]
        self.wish(now, 0.0)

    def unwish(self) -> None:
        """Take the wish back, unless somebody waits for its answer."""
        self._asked = [one for one in self._asked if not one.cancelled()]
        if not self._asked:
            self._wish = None

    def failed(self, now: float) -> None:
        """Ask again, ever later."""
        self._failures += 1
        self.wish(now, self._options.retry.delay(self._failures, self._random))

    def succeeded(self) -> None:
        self._failures = 0

    def completed(self) -> None:
        """What was asked for is applied: tell who waits, unless they asked while it was on its way."""
        if self._wish is not None:
            return
        asked, self._asked = self._asked, []
        for one in asked:
            if one.set_running_or_notify_cancel():
                one.set_result(None)

    def ask_ahead(self, now: float, position: SyncCursor, reset_head_version: int | None) -> None:
        """Ask for what follows on `position` while the page that leads there is being applied."""
        self.counts["requests"] += 1
        self._send(self._request(position, position.version, reset_head_version), 1, now)

    def jitter(self) -> float:
        return self._random.uniform(0.0, self._options.jitter)

    def answered(self, request_id: str) -> SyncRequest | None:
        """The open request that `request_id` answers, which is closed by it; None for any other."""
        if self._open is None or self._open.request.request_id != request_id:
            return None
        request, self._open = self._open.request, None
        return request

    def tick(self, now: float) -> float | None:
        """Send what is due; returns when to come again."""
        if self._open is not None and now >= self._open.repeat_at:
            self.counts["requests_repeated"] += 1
            self._send(self._open.request, self._open.sent + 1, now)
        elif self._open is None and self._wish is not None and now >= self._wish.at:
            unless, self._wish = self._wish.unless, None
            if self.from_zero or unless is None or not self._gallery.has_reached(*unless):
                self.counts["requests"] += 1
                self._send(self._next(), 1, now)
        if self._open is not None:
            return self._open.repeat_at
        return self._wish.at if self._wish else None

    def _next(self) -> SyncRequest:
        staged = self._gallery.staged
        position = staged.cursor if staged else self._gallery.cursor
        since_version = 0 if self.from_zero and not staged else position.version
        return self._request(position, since_version, staged.head_version if staged else None)

    def _request(
        self, position: SyncCursor, since_version: int, reset_head_version: int | None
    ) -> SyncRequest:
        return SyncRequest(
            device_id=self._device_id,
            request_id=secrets.token_hex(8),
            site_id=position.site_id,
            epoch=position.epoch,
            since_version=since_version,
            limit=self._options.limit,
            spaces=list(position.spaces),
            reset_head_version=reset_head_version,
        )

    def _send(self, request: SyncRequest, sent: int, now: float) -> None:
        _log.debug(
            "asking for what changed since version %d of epoch %s", request.since_version, request.epoch
        )
        if self._link.publish(channels.SYNC_REQUEST, request.to_json()) is None:
            # Not connected: connecting asks anew.
            self._open = None
        else:
            self.asked_at = self._gallery.cursor
            self._open = _OpenRequest(request, sent, now + self._options.retry.delay(sent, self._random))
