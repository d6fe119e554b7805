"""Answer observations with assignments while this worker has the lease."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from broker_bridge.common.clock import utc_now
from broker_bridge.common.retry import Backoff, repeat, retry
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Assignment, Observation
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.settings import TrackingSettings

from .admission import ObservationAdmission, ReceivedObservation
from .change_listener import DetectedPersonChanges
from .tracker import Tracker

_log = logging.getLogger(__name__)

_MAX_QUEUE = 2000
_LOOKUP_BATCH = 64
_LAST_WRITE_SECONDS = 1.5
# A face that was not looked up by then has been observed again.
_MAX_AGE = timedelta(seconds=5)


class ObservationIngest:
    """Admits observations, calls the tracker, publishes assignments.

    Idle in a worker that does not track.

    `counters` has `received`, `assigned`, `refused_<code>`, `dropped_queue_full` and `dropped_stale` (more
    arrive than can be looked up), `unanswered` (MongoDB was away), `sync_failures`, and those of the tracker.
    """

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        settings: TrackingSettings,
        *,
        may_track: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._settings = settings
        self._may_track = may_track
        self._now = now
        self._tracker: Tracker | None = None
        self._counted: Counter[str] = Counter()
        self._admission = ObservationAdmission(registry, settings, self._counted, now)
        self._queue: deque[ReceivedObservation] = deque()
        self._unpublished: deque[tuple[str, Assignment]] = deque()
        self._queued = asyncio.Event()
        self._assigned = asyncio.Event()

    @property
    def counters(self) -> Counter[str]:
        tracked = self._tracker.counters if self._tracker else Counter[str]()
        return self._counted + tracked

    @property
    def active_count(self) -> int:
        """The number of persons in memory."""
        return len(self._tracker) if self._tracker else 0

    @property
    def is_tracking(self) -> bool:
        """Whether this worker answers observations."""
        return self._tracker is not None and self._may_track()

    def accept(self, decoded: Decoded[Observation], _: bytes) -> None:
        """Answer at once if a person in memory matches; queue all others for a lookup."""
        if self._tracker is None or not self._may_track():
            return
        self._counted["received"] += 1
        received = ReceivedObservation(decoded.ids["device_id"], decoded.message, self._now())
        if self._admission.can_check(received):
            observed = self._admission.admit(received)
            assignment = observed and self._tracker.match_active(observed)
            if assignment:
                self._schedule_publish(received.device_id, assignment)
            if assignment or not observed:
                return
        if len(self._queue) >= _MAX_QUEUE:
            self._counted["dropped_queue_full"] += 1
            return
        self._queue.append(received)
        self._queued.set()

    def reject(self, device_id: str, error: ContractError) -> None:
        """Count an observation that could not be decoded."""
        self._admission.reject(device_id, error)

    async def ingest_observations(self) -> None:
        """Track until cancelled, then write the sightings that are still unwritten."""
        tracker = Tracker(self._registry, self._settings, may_track=self._may_track)
        self._tracker = tracker
        changes = DetectedPersonChanges(self._registry, tracker, self._counted, self._now)
        try:
            await asyncio.gather(
                self._assign_queued(tracker),
                self._publish_assignments(),
                self._write_sightings(tracker),
                changes.apply_changes(),
            )
        finally:
            self._tracker = None
            self._counted += tracker.counters
            self._queue.clear()
            self._unpublished.clear()
            if self._may_track():
                with suppress(RegistryError, asyncio.TimeoutError):
                    await asyncio.wait_for(tracker.write_pending(self._now()), _LAST_WRITE_SECONDS)

    async def _assign_queued(self, tracker: Tracker) -> None:
        async def drain() -> None:
            while self._queue:
                await self._assign_batch(tracker)

        def report(error: Exception) -> None:
            _log.warning("tracker cannot reach MongoDB; observations wait error=%s", type(error).__name__)

        while True:
            await self._queued.wait()
            self._queued.clear()
            await retry(drain, on=RegistryError, report=report)

    async def _assign_batch(self, tracker: Tracker) -> None:
        batch = [self._queue.popleft() for _ in range(min(_LOOKUP_BATCH, len(self._queue)))]
        fresh = [received for received in batch if self._now() - received.received_at < _MAX_AGE]
        self._counted["dropped_stale"] += len(batch) - len(fresh)
        try:
            await self._admission.read_missing(fresh)
            faces = [observed for received in fresh if (observed := self._admission.admit(received))]
            assignments = await tracker.assign_batch(faces)
        except RegistryError:
            # Not queued again: the cameras send the same tracks a second later.
            self._counted["unanswered"] += len(fresh)
            raise
        for observed, assignment in zip(faces, assignments, strict=True):
            self._schedule_publish(observed.device_id, assignment)

    def _schedule_publish(self, device_id: str, assignment: Assignment) -> None:
        self._unpublished.append((device_id, assignment))
        self._assigned.set()

    async def _publish_assignments(self) -> None:
        while True:
            await self._assigned.wait()
            self._assigned.clear()
            while self._unpublished:
                device_id, assignment = self._unpublished.popleft()
                # One after the other: QoS 0 waits for nothing, and one turn of the event loop is one write.
                sent = await self._publish(channels.ASSIGNED, assignment, device_id=device_id)
                self._counted["assigned"] += sent

    async def _write_sightings(self, tracker: Tracker) -> None:
        """Write every `db_sync_interval` seconds, and read cameras and spaces again."""
        interval = self._settings.db_sync_interval

        async def write() -> None:
            if self._may_track():
                await tracker.write_pending(self._now())
                await self._admission.refresh()

        def report(error: Exception) -> None:
            self._counted["sync_failures"] += 1
            _log.warning("tracker cannot write sightings; it tries again error=%s", type(error).__name__)

        await asyncio.sleep(interval)
        await repeat(write, on=RegistryError, report=report, backoff=Backoff(interval, interval))
