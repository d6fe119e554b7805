"""`SyncManager`: keeps the gallery equal to the registry's, by deltas, by pages and by a look at the head."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from apscheduler.schedulers.base import BaseScheduler

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import (
    SyncDelta,
    SyncHead,
    SyncPage,
    SyncPosition,
    SyncProgress,
    WireError,
)
from device.mqtt.link import Link, SessionListener
from device.store.connection import StoreError
from device.store.cursor import SnapshotProgress
from device.store.db_manager import DatabaseManager

from .gallery_state import GalleryState, OnGallery, ignore_rows
from .sync_policy import (
    DeltaDecision,
    HeadDecision,
    PageDecision,
    decide_on_delta,
    decide_on_head,
    decide_on_page,
    head_of_reset,
    may_swap,
    moved,
    plan_change,
)
from .sync_requests import DriftPause, SyncOptions, SyncRequests
from .sync_status import DeviceSyncStatus, applied_message

_log = logging.getLogger(__name__)

_SYNCED_AT = "synced_at"
_UNEXPECTED = WireError(code="sync-page-unexpected", detail="a page did not follow on what is held")
# After these a reset that was under way cannot go on.
_ENDS_RESET = ("sync-epoch-changed", _UNEXPECTED.code)


class SyncManager(SessionListener):
    """Follows the registry through `link`; all methods but the last group run in the link's thread.

    `spaces` is `{space: dimension}`. `on_gallery` gets the rows of each space at the start and after every
    commit. Loss, repetition and reordering of any message is harmless.
    """

    def __init__(
        self,
        db: DatabaseManager,
        link: Link,
        *,
        device_id: str,
        site_id: str,
        spaces: Mapping[str, int],
        scheduler: BaseScheduler,
        source: random.Random,
        on_gallery: OnGallery = ignore_rows,
        options: SyncOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._db = db
        self._link = link
        self._device_id = device_id
        self._scheduler = scheduler
        self._options = options or SyncOptions()
        self._clock = clock
        self._utc_now = utc_now
        self._gallery = GalleryState(db, site_id, spaces, on_gallery)
        self._requests = SyncRequests(link, self._gallery, device_id, self._options, source)
        self._counts: Counter[str] = Counter()
        self._head: SyncHead | None = None
        self._error: WireError | None = None
        remembered = db.get_config(_SYNCED_AT)
        begun = self._gallery.cursor.epoch is not None  # Not so for another site or other spaces than before.
        self._synced_at = datetime.fromisoformat(remembered) if remembered and begun else None
        self._connections = 0
        self._catching_up_to: int | None = None
        self._drift = DriftPause(self._options.drift_pause, source)
        if not self._gallery.intact:
            self._counts["drift"] += 1
            self._requests.from_zero = True
            _log.warning("the stored gallery differs from its digests; it is fetched again in full")

    # The link's events

    def connected(self, now: float) -> None:
        self._connections += 1
        self._requests.restart()
        self._publish_applied(0.0)
        grace = self._options.grace if self._connections > 1 else 0.0
        # Spread: a site that gets its power back connects all its cameras at once.
        self._requests.wish(now, 0.0 if self._gallery.is_empty else grace + self._requests.jitter())

    def disconnected(self) -> None:
        self._requests.restart()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        now = self._clock()
        if decoded.channel is channels.SYNC_DELTA:
            self._take_delta(decoded.message, now)
        elif decoded.channel is channels.SYNC_HEAD:
            self._take_head(decoded.message, now)
        elif decoded.channel is channels.SYNC_PAGE:
            self._take_page(decoded.message, now)

    def tick(self, now: float) -> float | None:
        return self._requests.tick(now)

    def _take_delta(self, delta: SyncDelta, now: float) -> None:
        decision = decide_on_delta(self._gallery.cursor, delta, with_names=self._db.dev_mode)
        self._counts[f"delta_{decision.value}"] += 1
        if decision is DeltaDecision.APPLY:
            change = plan_change(delta.upserts, delta.removals, self._gallery.dimensions)
            self._gallery.apply(change, moved(self._gallery.cursor, delta.epoch, delta.version))
            self._error = change.error
            self._publish_applied(self._clock() - now)
        elif decision is DeltaDecision.REQUEST:
            self._requests.wish(now, self._requests.jitter(), unless=(delta.epoch, delta.version))

    def _take_head(self, head: SyncHead, now: float) -> None:
        self._head = head
        if not self._requests.is_open and self._gallery.staged is None:
            self._compare_with(head, now)

    def _compare_with(self, head: SyncHead, now: float) -> None:
        decision = decide_on_head(self._gallery.cursor, self._gallery.held(), head)
        if decision is HeadDecision.CURRENT:
            self._drift.is_over()
            if not self._requests.from_zero and self._connections > 1 and self._is_fresh():
                self._requests.unwish()
        elif decision is HeadDecision.DRIFT:
            self._resync_from_zero(now)
        else:
            delay = 0.0 if self._gallery.is_empty else self._requests.jitter()
            self._requests.wish(now, delay, unless=(head.epoch, head.version))

    def _is_fresh(self) -> bool:
        """Whether the registry itself has said so lately: the broker keeps a head that may be days old."""
        age = self._utc_now() - self._synced_at if self._synced_at else None
        return age is not None and age.total_seconds() < self._options.fresh

    def _resync_from_zero(self, now: float) -> None:
        if self._drift.may_mend(now):
            self._counts["drift"] += 1
            self._requests.from_zero = True
            _log.warning("equal version, other templates than the registry: all is fetched again")
            self._requests.wish(now, self._requests.jitter())

    def _take_page(self, page: SyncPage, now: float) -> None:
        request = self._requests.answered(page.request_id)
        if request is None:
            self._counts["pages_ignored"] += 1
            return
        staged = self._gallery.staged
        decision = decide_on_page(
            self._gallery.cursor, staged.cursor if staged else None, request.since_version, page
        )
        fault = page.error or (_UNEXPECTED if decision is PageDecision.REQUEST else None)
        if fault is not None:
            self._fail(fault, now)
            return
        self._ask_ahead(decision, page, now)
        try:
            self._take_in(decision, page)
            staged = self._gallery.staged
            if staged and page.done and may_swap(self._requests.asked_at, self._gallery.cursor, page):
                self._gallery.finish_snapshot(staged)
        except StoreError:
            # What was asked for ahead would not follow on what is held.
            self._requests.restart()
            self._requests.failed(now)
            raise
        self._requests.succeeded()
        self._catching_up_to = None if page.done else page.head_version
        if self._gallery.staged is None and page.done:
            self._complete(now)
        elif not self._requests.is_open:
            # A page that brought nothing although there is more: do not ask in a circle.
            pause = 0.0 if page.to_version > page.from_version else self._options.grace
            self._requests.wish(now, pause)

    def _ask_ahead(self, decision: PageDecision, page: SyncPage, now: float) -> None:
        """The bridge reads the next page while this one is written: at most one is on its way."""
        if page.done or page.to_version <= page.from_version or decision is PageDecision.SKIP:
            return
        position = moved(self._gallery.cursor, page.epoch, page.to_version)
        self._requests.ask_ahead(now, position, head_of_reset(decision, self._gallery.staged, page))

    def _take_in(self, decision: PageDecision, page: SyncPage) -> None:
        change = plan_change(page.upserts, page.removals, self._gallery.dimensions)
        target = moved(self._gallery.cursor, page.epoch, page.to_version)
        staged = self._gallery.staged
        if decision is PageDecision.BEGIN_RESET:
            self._gallery.begin_snapshot(change, SnapshotProgress(target, page.head_version))
            self._error = change.error
            self._requests.from_zero = False
            self._counts["resets"] += 1
        elif staged is not None:
            self._gallery.stage(change, SnapshotProgress(target, staged.head_version))
            self._error = self._error or change.error
        else:
            if decision is PageDecision.APPLY:
                self._gallery.apply(change, target)
            self._error = change.error

    def _complete(self, now: float) -> None:
        self._synced_at = self._utc_now()
        self._db.set_config(_SYNCED_AT, self._synced_at.isoformat())
        self._publish_applied(self._clock() - now)
        head = self._head  # One from before this sync says nothing about it.
        if head and head.epoch == self._gallery.cursor.epoch and head.version >= self._gallery.cursor.version:
            self._compare_with(head, now)
        self._requests.completed()

    def _fail(self, error: WireError, now: float) -> None:
        self._error = error
        _log.error("sync is held up: %s: %s", error.code, error.detail)
        if error.code in _ENDS_RESET and self._gallery.staged:
            self._gallery.abandon_snapshot()
        self._requests.failed(now)

    def _publish_applied(self, seconds: float) -> None:
        position = self.position()
        if position is None:
            return
        applied = applied_message(self._device_id, position, seconds, self._error)
        self._link.publish(channels.SYNC_APPLIED, applied.to_json())

    # For other threads

    @property
    def synced_at(self) -> datetime | None:
        """When the gallery was last known to be the registry's; None before the first sync of this site in
        these spaces."""
        return self._synced_at

    def position(self) -> SyncPosition | None:
        """For the heartbeat; None before the first sync."""
        cursor = self._gallery.cursor
        if cursor.epoch is None:
            return None
        return SyncPosition(epoch=cursor.epoch, version=cursor.version, spaces=self._gallery.held())

    def progress(self) -> SyncProgress | None:
        """For the heartbeat: a sync of several pages that is under way, None without one."""
        staged = self._gallery.staged
        if staged is None and self._catching_up_to is None:
            return None
        at = staged.cursor if staged else self._gallery.cursor
        to = self._catching_up_to or (staged.head_version if staged else at.version)
        return SyncProgress(version=at.version, head_version=to, people=self._gallery.snapshot_identities())

    def get_sync_status(self) -> DeviceSyncStatus:
        return DeviceSyncStatus(
            epoch=self._gallery.cursor.epoch,
            version=self._gallery.cursor.version,
            spaces=self._gallery.held(),
            in_progress=self._requests.is_open,
            resetting=self._gallery.staged is not None,
            synced_at=self._synced_at,
            error=self._error,
            counts={**self._counts, **self._requests.counts},
        )

    def sync_now(self) -> None:
        """Ask for what has changed, soon; while there is no connection, connecting asks."""
        self._link.submit(lambda: self._requests.wish(self._clock(), 0.0))

    def request_sync(self, since_version: int | None = None) -> "Future[None]":
        """`sync_now`; a `since_version` of 0 fetches everything anew. Any other leaves it to the cursor.

        Done once all is applied that the registry had when it was asked; cancel it when nobody waits.
        """
        asked: Future[None] = Future()

        def ask() -> None:
            self._requests.from_zero = self._requests.from_zero or since_version == 0
            self._requests.ask(self._clock(), asked)

        self._link.submit(ask)
        return asked

    def start_periodic_sync(self, interval_minutes: float = 15) -> None:
        """Ask every `interval_minutes` as long as the scheduler runs, however late it wakes up."""
        self._scheduler.add_job(
            self.sync_now, "interval", minutes=interval_minutes, coalesce=True, misfire_grace_time=None
        )
