"""The sync requests of a device, one at a time.

They are spread over a fleet and repeated while unanswered.
"""

import logging
import random
import secrets
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from broker_bridge.common.retry import Backoff
from broker_bridge.contract import channels
from broker_bridge.contract.messages import SyncPage, SyncRequest
from device.mqtt.link import Link
from device.store.cursor import SnapshotProgress, SyncCursor

from .gallery_state import GalleryState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyncOptions:
    """The timing of a sync, in seconds, and the size of answers.

    `limit` is the number of identities per page, `pages` the number of pages per request.
    `jitter` spreads the requests of a fleet. `grace` waits for the retained head before a request. A head
    that is current replaces the request if the registry answered within `fresh`, which is longer than the
    interval of the periodic sync.
    """

    limit: int = 200
    pages: int = 4
    jitter: float = 0.5
    grace: float = 0.5
    fresh: float = 1200.0
    retry: Backoff = field(default_factory=lambda: Backoff(base=5.0, cap=300.0))
    drift_pause: Backoff = field(default_factory=lambda: Backoff(base=60.0, cap=3600.0))


@dataclass(frozen=True)
class _ScheduledRequest:
    """A request to send at `at`.

    It is dropped if the gallery includes `unless` (epoch, version) by then.
    """

    at: float
    unless: tuple[str, int] | None


@dataclass(frozen=True)
class _OpenRequest:
    request: SyncRequest
    attempts: int
    sent_at: float
    repeat_at: float


class DriftPause:
    """The pause between snapshot syncs after drift.

    Without it, lasting drift would fetch all identities in a loop.
    """

    def __init__(self, pause: Backoff, source: random.Random) -> None:
        self._pause = pause
        self._random = source
        self._in_a_row = 0
        self._not_before = float("-inf")

    def begin_repair(self, now: float) -> bool:
        """Return whether a snapshot sync may begin now, and count it."""
        if now < self._not_before:
            return False
        self._in_a_row += 1
        self._not_before = now + self._pause.delay(self._in_a_row, self._random)
        return True

    def reset(self) -> None:
        self._in_a_row = 0


class SyncRequests:
    """The open request and the scheduled one.

    `needs_snapshot` makes the next request ask for everything. `cursor_at_request` is the cursor of the live
    gallery at the last request, `interval` the seconds between periodic requests. `counts` has `requests` and
    `requests_repeated`.
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
        self._scheduled: _ScheduledRequest | None = None
        self._waiters: list[Future[None]] = []
        self._failures = 0
        self.interval: float | None = None
        self._periodic_at = float("inf")
        self.needs_snapshot = False
        self.cursor_at_request = gallery.cursor
        self.counts: Counter[str] = Counter()

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def discard(self) -> None:
        """Forget the open and the scheduled request.

        A request of an old connection gets no answer.
        """
        self._open = self._scheduled = None

    def schedule(self, now: float, delay: float, unless: tuple[str, int] | None = None) -> None:
        """Schedule a request in `delay` seconds, or earlier if one is scheduled earlier.

        The request is not sent if the gallery includes `unless` (epoch, version) by then.
        """
        at = now + delay
        if self._scheduled is not None:
            at = min(at, self._scheduled.at)
            unless = unless if self._scheduled.unless == unless else None
        self._scheduled = _ScheduledRequest(at, unless)

    def repeat_every(self, seconds: float, now: float) -> None:
        """Schedule a request every `seconds` from now on, besides all others."""
        self.interval = seconds
        self._periodic_at = now + seconds

    def request_now(self, now: float, waiter: "Future[None]") -> None:
        """Schedule a request at once; `waiter` gets its result when everything is applied."""
        self._waiters = [*self._active_waiters(), waiter]
        self.schedule(now, 0.0)

    def cancel(self) -> None:
        """Cancel the scheduled request, unless a waiter needs its answer."""
        self._waiters = self._active_waiters()
        if not self._waiters:
            self._scheduled = None

    def _active_waiters(self) -> "list[Future[None]]":
        return [waiter for waiter in self._waiters if not waiter.cancelled()]

    def schedule_retry(self, now: float) -> None:
        """Schedule a request after a failure, later after each failure in a row."""
        self._failures += 1
        self.schedule(now, self._options.retry.delay(self._failures, self._random))

    def reset_failures(self) -> None:
        self._failures = 0

    def resolve_waiters(self) -> None:
        """Resolve the waiters, unless another request was scheduled meanwhile.

        Call it when everything is applied.
        """
        if self._scheduled is not None:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    def go_ahead(
        self, now: float, page: SyncPage, cursor: SyncCursor, snapshot: SnapshotProgress | None
    ) -> None:
        """Request the page after `cursor` before `page` is applied.

        `page` leads to `cursor`. If `page` has `more`, the next one follows by itself; only if it does not
        come, it is requested, under the same id.
        """
        request = self._request(cursor, cursor.version, snapshot)
        if page.more:
            request = request.model_copy(update={"request_id": page.request_id})
            self._open = _OpenRequest(request, 1, now, now + self._options.retry.delay(1, self._random))
        else:
            self.counts["requests"] += 1
            self._send(request, 1, now)

    def jitter(self) -> float:
        return self._random.uniform(0.0, self._options.jitter)

    def repeat_soon(self, now: float) -> None:
        """Repeat an open request that has waited for long: the bridge works again.

        Its delays begin anew. A request that was sent just now waits for its answer.
        """
        if self._open is not None and now - self._open.sent_at > self._options.retry.base:
            at = min(self._open.repeat_at, now + self.jitter())
            self._open = replace(self._open, attempts=0, repeat_at=at)

    def close_answered(self, page: SyncPage) -> tuple[SyncRequest, float] | None:
        """Close the open request if `page` answers it; return it and its time."""
        if self._open is None or self._open.request.request_id != page.request_id:
            return None
        request, sent_at = self._open.request, self._open.sent_at
        if page.from_version < request.since_version and not page.reset:
            # An earlier page of the same answer, which came twice.
            return None
        self._open = None
        return request, sent_at

    def tick(self, now: float) -> float | None:
        """Send what is due; return the time of the next call."""
        if self.interval is not None and now >= self._periodic_at:
            self._periodic_at = now + self.interval
            self.schedule(now, 0.0)
        at = self._send_due(now)
        if self.interval is None:
            return at
        return self._periodic_at if at is None else min(at, self._periodic_at)

    def _send_due(self, now: float) -> float | None:
        if self._open is not None and now >= self._open.repeat_at:
            self.counts["requests_repeated"] += 1
            self._send(self._open.request, self._open.attempts + 1, now)
        elif self._open is None and self._scheduled is not None and now >= self._scheduled.at:
            unless, self._scheduled = self._scheduled.unless, None
            if self.needs_snapshot or unless is None or not self._gallery.includes(*unless):
                self.counts["requests"] += 1
                self._send(self._next_request(), 1, now)
        if self._open is not None:
            return self._open.repeat_at
        return self._scheduled.at if self._scheduled else None

    def _next_request(self) -> SyncRequest:
        snapshot = self._gallery.snapshot
        cursor = snapshot.cursor if snapshot else self._gallery.cursor
        return self._request(cursor, 0 if self.needs_snapshot and not snapshot else cursor.version, snapshot)

    def _request(
        self, cursor: SyncCursor, since_version: int, snapshot: SnapshotProgress | None
    ) -> SyncRequest:
        return SyncRequest(
            device_id=self._device_id,
            request_id=secrets.token_hex(8),
            site_id=cursor.site_id,
            epoch=cursor.epoch,
            since_version=since_version,
            limit=self._options.limit,
            spaces=list(cursor.spaces),
            reset_head_version=snapshot.head_version if snapshot else None,
            pages=self._options.pages,
        )

    def _send(self, request: SyncRequest, attempts: int, now: float) -> None:
        _log.debug("sync request sent since_version=%d epoch=%s", request.since_version, request.epoch)
        if self._link.publish(channels.SYNC_REQUEST, request.to_json()) is None:
            # Not connected: the next connection requests again.
            self._open = None
        else:
            self.cursor_at_request = self._gallery.cursor
            self._open = _OpenRequest(
                request, attempts, now, now + self._options.retry.delay(attempts, self._random)
            )
