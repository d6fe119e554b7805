"""`SyncManager`: keep the gallery equal to the registry's by deltas and pages."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any

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
from device.store.db_manager import DatabaseManager
from device.timing.device_clock import OnAnswer

from .applied_change import plan_change
from .gallery_state import GalleryState, OnGallery, ignore_rows
from .page_plan import UNEXPECTED_PAGE, PagePlan, PageStep, SyncState, move_cursor, plan_page
from .sync_policy import DeltaDecision, HeadDecision, decide_on_delta, decide_on_head
from .sync_requests import DriftPause, SyncOptions, SyncRequests
from .sync_status import DeviceSyncStatus, applied_message

_log = logging.getLogger(__name__)

_SYNCED_AT = "synced_at"
_SNAPSHOT_ENDING_ERRORS = ("sync-epoch-changed", UNEXPECTED_PAGE.code)


class SyncManager(SessionListener):
    """The follower of the registry through `link`.

    All methods but the last group run in the link's thread. `spaces` is `{space: dimension}`.
    `on_gallery` gets the rows of each space at the start and after every commit. Loss, repetition and
    reordering of any message is harmless.
    """

    def __init__(
        self,
        db: DatabaseManager,
        link: Link,
        *,
        device_id: str,
        site_id: str,
        spaces: Mapping[str, int],
        source: random.Random,
        on_gallery: OnGallery = ignore_rows,
        options: SyncOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = utc_now,
        on_answer: OnAnswer = lambda _at, _round_trip: None,
    ) -> None:
        self._db = db
        self._link = link
        self._device_id = device_id
        self._options = options or SyncOptions()
        self._clock = clock
        self._utc_now = utc_now
        self._on_answer = on_answer
        self._gallery = GalleryState(db, site_id, spaces, on_gallery)
        self._requests = SyncRequests(link, self._gallery, device_id, self._options, source)
        self._counts: Counter[str] = Counter()
        self._head: SyncHead | None = None
        self._error: WireError | None = None
        stored = db.get_config(_SYNCED_AT)
        has_synced = self._gallery.cursor.epoch is not None  # False after a change of the site or the spaces.
        self._synced_at = datetime.fromisoformat(stored) if stored and has_synced else None
        self._synced_seconds = float("-inf")
        self._connections = 0
        self._catching_up_to: int | None = None
        self._drift = DriftPause(self._options.drift_pause, source)
        if not self._gallery.intact:
            self._counts["drift"] += 1
            self._requests.needs_snapshot = True
            _log.warning("sync found a stored gallery that differs from its digests; a snapshot sync follows")

    # The link's events

    def connected(self, now: float) -> None:
        self._connections += 1
        self._requests.discard()
        self._publish_applied(0.0)
        grace = self._options.grace if self._connections > 1 else 0.0
        # Spread: a site that gets its power back connects all its cameras at once.
        self._requests.schedule(now, 0.0 if self._gallery.is_empty else grace + self._requests.jitter())

    def disconnected(self) -> None:
        self._requests.discard()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        now = self._clock()
        if decoded.channel in (channels.SYNC_DELTA, channels.SYNC_HEAD):
            self._requests.repeat_soon(now)
        if decoded.channel is channels.SYNC_DELTA:
            self._receive_delta(decoded.message, now)
        elif decoded.channel is channels.SYNC_HEAD:
            self._receive_head(decoded.message, now)
        elif decoded.channel is channels.SYNC_PAGE:
            self._receive_page(decoded.message, now)

    def tick(self, now: float) -> float | None:
        return self._requests.tick(now)

    def _receive_delta(self, delta: SyncDelta, now: float) -> None:
        decision = decide_on_delta(self._gallery.cursor, delta, with_names=self._db.dev_mode)
        self._counts[f"delta_{decision.value}"] += 1
        if decision is DeltaDecision.APPLY:
            change = plan_change(delta.upserts, delta.removals, self._gallery.dimensions)
            self._gallery.apply(change, move_cursor(self._gallery.cursor, delta.epoch, delta.version))
            self._error = change.error
            self._publish_applied(self._clock() - now)
        elif decision is DeltaDecision.REQUEST:
            self._requests.schedule(now, self._requests.jitter(), unless=(delta.epoch, delta.version))

    def _receive_head(self, head: SyncHead, now: float) -> None:
        self._head = head
        if not self._requests.is_open and self._gallery.snapshot is None:
            self._compare_with_head(head, now)

    def _compare_with_head(self, head: SyncHead, now: float) -> None:
        decision = decide_on_head(self._gallery.cursor, self._gallery.digests(), head)
        if decision is HeadDecision.CURRENT:
            self._drift.reset()
            # A retained head may be days old: the registry must have answered lately.
            is_fresh = self._connections > 1 and self.seconds_since_sync < self._options.fresh
            if is_fresh and not self._requests.needs_snapshot:
                self._requests.cancel()
        elif decision is HeadDecision.DRIFT:
            self._repair_drift(now)
        else:
            delay = 0.0 if self._gallery.is_empty else self._requests.jitter()
            self._requests.schedule(now, delay, unless=(head.epoch, head.version))

    def _repair_drift(self, now: float) -> None:
        if self._drift.begin_repair(now):
            self._counts["drift"] += 1
            self._requests.needs_snapshot = True
            _log.warning(
                "sync found drift: templates differ from the registry at an equal version; "
                "a snapshot sync follows version=%d",
                self._gallery.cursor.version,
            )
            self._requests.schedule(now, self._requests.jitter())

    def _receive_page(self, page: SyncPage, now: float) -> None:
        answered = self._requests.close_answered(page)
        if answered is None:
            self._counts["pages_ignored"] += 1
            return
        request, sent_at = answered
        if page.at is not None:
            self._on_answer(page.at, now - sent_at)
        plan = plan_page(self._state(), request, page)
        if plan.step is PageStep.REJECT:
            self._fail(plan.error or UNEXPECTED_PAGE, now)
            return
        if plan.requests_ahead:
            # The bridge reads the next pages while the device writes this one.
            self._requests.go_ahead(now, page, plan.cursor, plan.snapshot)
        self._commit(plan, now)
        self._requests.reset_failures()
        self._catching_up_to = None if page.done else page.head_version
        if self._gallery.snapshot is None and page.done:
            self._complete(now)
        elif not self._requests.is_open:
            # An empty page although there is more: a pause, so that device and bridge do not loop.
            pause = 0.0 if page.to_version > page.from_version else self._options.grace
            self._requests.schedule(now, pause)

    def _state(self) -> SyncState:
        gallery = self._gallery
        return SyncState(
            gallery.cursor,
            self._requests.cursor_at_request,
            gallery.snapshot,
            self._error,
            gallery.dimensions,
        )

    def _commit(self, plan: PagePlan, now: float) -> None:
        """Write what `plan` changes. Raises StoreError after scheduling another request."""
        try:
            if plan.step is PageStep.APPLY:
                self._gallery.apply(plan.change, plan.cursor)
            elif plan.snapshot and plan.step is PageStep.BEGIN_SNAPSHOT:
                self._gallery.begin_snapshot(plan.change, plan.snapshot)
                self._requests.needs_snapshot = False
                self._counts["resets"] += 1
            elif plan.snapshot:
                self._gallery.extend_snapshot(plan.change, plan.snapshot)
            self._error = plan.error
            if plan.snapshot and plan.swap:
                self._gallery.finish_snapshot(plan.snapshot)
        except StoreError:
            # A page that was requested ahead would not continue from what is stored.
            self._requests.discard()
            self._requests.schedule_retry(now)
            raise

    def _complete(self, now: float) -> None:
        self._synced_at = self._utc_now()
        self._synced_seconds = self._clock()
        self._db.set_config(_SYNCED_AT, self._synced_at.isoformat())
        self._publish_applied(self._clock() - now)
        head = self._head  # A head from before this sync does not describe its result.
        if head and head.epoch == self._gallery.cursor.epoch and head.version >= self._gallery.cursor.version:
            self._compare_with_head(head, now)
        self._requests.resolve_waiters()

    def _fail(self, error: WireError, now: float) -> None:
        self._error = error
        _log.error("sync failed; the device requests again code=%s detail=%r", error.code, error.detail)
        if error.code in _SNAPSHOT_ENDING_ERRORS and self._gallery.snapshot:
            self._gallery.abandon_snapshot()
        self._requests.schedule_retry(now)

    def _publish_applied(self, seconds: float) -> None:
        position = self.position()
        if position is None:
            return
        applied = applied_message(self._device_id, position, seconds, self._error)
        self._link.publish(channels.SYNC_APPLIED, applied.to_json())

    # For other threads

    @property
    def synced_at(self) -> datetime | None:
        """The time of the last match with the registry, None before the first sync."""
        return self._synced_at

    @property
    def seconds_since_sync(self) -> float:
        """The monotonic seconds since the last match in this run, infinite before."""
        return self._clock() - self._synced_seconds

    def position(self) -> SyncPosition | None:
        """Return version and digests for the heartbeat, or None before the first sync."""
        cursor = self._gallery.cursor
        if cursor.epoch is None:
            return None
        return SyncPosition(epoch=cursor.epoch, version=cursor.version, spaces=self._gallery.digests())

    def progress(self) -> SyncProgress | None:
        """Return the heartbeat's progress of a sync of several pages, if there is one."""
        snapshot = self._gallery.snapshot
        if snapshot is None and self._catching_up_to is None:
            return None
        cursor = snapshot.cursor if snapshot else self._gallery.cursor
        head_version = self._catching_up_to or (snapshot.head_version if snapshot else cursor.version)
        return SyncProgress(
            version=cursor.version, head_version=head_version, people=self._gallery.snapshot_identities()
        )

    def get_sync_status(self) -> DeviceSyncStatus:
        """Return the position of the gallery and the state of its sync (seed 003)."""
        return DeviceSyncStatus(
            epoch=self._gallery.cursor.epoch,
            version=self._gallery.cursor.version,
            spaces=self._gallery.digests(),
            in_progress=self._requests.is_open,
            resetting=self._gallery.snapshot is not None,
            synced_at=self._synced_at,
            error=self._error,
            counts={**self._counts, **self._requests.counts},
        )

    def sync_now(self) -> None:
        """Request changes soon; without a connection, on the next one (seed 003)."""
        self._link.submit(lambda: self._requests.schedule(self._clock(), 0.0))

    def request_sync(self, since_version: int | None = None) -> "Future[None]":
        """Request changes, and all identities if `since_version` is 0.

        The device's own cursor decides for any other `since_version`. The future is done when everything
        is applied that the registry had at the request. Cancel it when its result is no longer needed.
        """
        waiter: Future[None] = Future()

        def request() -> None:
            self._requests.needs_snapshot = self._requests.needs_snapshot or since_version == 0
            self._requests.request_now(self._clock(), waiter)

        self._link.submit(request)
        return waiter

    def start_periodic_sync(self, interval_minutes: float = 15) -> None:
        """Request changes every `interval_minutes`, by monotonic time (seed 003)."""
        self._link.submit(lambda: self._requests.repeat_every(interval_minutes * 60, self._clock()))
