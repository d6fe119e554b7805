"""Write the sightings of active persons to MongoDB, in bulk and some time later."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from broker_bridge.registry.detected_persons.model import VisitSegment
from broker_bridge.registry.detected_persons.tracker_store import TrackerStore

from .active_person import ActivePerson

# Persons per bulk write: to encode more keeps the event loop busy for too long.
_BATCH_SIZE = 20


class WriteBehind:
    """The persons with unwritten sightings.

    `counters` has `written` and `write_failures`.
    """

    def __init__(self, store: TrackerStore, counters: Counter[str]) -> None:
        self._store = store
        self._counters = counters
        self._pending: dict[int, ActivePerson] = {}

    def __contains__(self, active: ActivePerson) -> bool:
        """Return whether a person has unwritten sightings."""
        return active.global_id in self._pending

    def schedule(self, active: ActivePerson) -> None:
        self._pending[active.global_id] = active

    def cancel(self, global_ids: Iterable[int]) -> None:
        for global_id in global_ids:
            self._pending.pop(global_id, None)

    async def write_all(self, now: datetime) -> set[int]:
        """Write all scheduled persons that are stored; see `write`."""
        return await self.write([active for active in self._pending.values() if active.is_stored], now)

    async def write(self, persons: Sequence[ActivePerson], now: datetime) -> set[int]:
        """Write these persons and return the global ids that were deleted in MongoDB.

        Raises RegistryError; what was not written stays scheduled.
        """
        deleted: set[int] = set()
        for start in range(0, len(persons), _BATCH_SIZE):
            deleted |= await self._write_batch(persons[start : start + _BATCH_SIZE], now)
        return deleted

    async def _write_batch(self, batch: Sequence[ActivePerson], now: datetime) -> set[int]:
        segments = [active.unwritten_segments for active in batch]
        for active in batch:
            self._pending.pop(active.global_id, None)
            active.unwritten_segments = {}
        try:
            return await self._write_taken(batch, segments, now)
        except BaseException:
            self._counters["write_failures"] += 1
            for active, unwritten in zip(batch, segments, strict=True):
                self._pending.setdefault(active.global_id, active)
                active.unwritten_segments = unwritten | active.unwritten_segments
            raise

    async def _write_taken(
        self,
        batch: Sequence[ActivePerson],
        segments: Sequence[dict[tuple[str, datetime], VisitSegment]],
        now: datetime,
    ) -> set[int]:
        existing_ids = await self._store.existing_ids([active.global_id for active in batch])
        existing = [active for active in batch if active.global_id in existing_ids]
        moved = [(active, centroid.copy()) for active in existing for centroid in active.moved_centroids()]
        await self._store.write_counters([active.record for active in existing], now)
        await self._store.write_centroids([(active.global_id, centroid) for active, centroid in moved])
        for active, centroid in moved:
            active.stored_centroids[centroid.space] = centroid
        await self._store.write_segments(
            [one for unwritten in segments for one in unwritten.values() if one.global_id in existing_ids]
        )
        self._counters["written"] += len(existing)
        return {active.global_id for active in batch} - existing_ids
