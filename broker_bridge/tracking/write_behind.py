"""What was seen of people, to MongoDB: in bulk, now and then, and again when it failed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from broker_bridge.registry.detected_persons.model import VisitSegment
from broker_bridge.registry.detected_persons.tracker_store import TrackerStore

from .active_set import ActivePerson

# In one bulk: to encode more keeps the event loop from answering for too long.
_AT_ONCE = 20


class WriteBehind:
    """Knows who has changed since they were written. `counters` has `written` and `write_failures`."""

    def __init__(self, store: TrackerStore, counters: Counter[str]) -> None:
        self._store = store
        self._counters = counters
        self._changed: dict[int, ActivePerson] = {}

    def __contains__(self, global_id: int) -> bool:
        """Whether something of this person is still to be written."""
        return global_id in self._changed

    def note(self, present: ActivePerson) -> None:
        """This person has been seen."""
        self._changed[present.global_id] = present

    def drop(self, global_ids: Iterable[int]) -> None:
        for global_id in global_ids:
            self._changed.pop(global_id, None)

    async def write_all(self, now: datetime) -> set[int]:
        """Write everybody who has changed; see `write`."""
        return await self.write([one for one in self._changed.values() if one.is_stored], now)

    async def write(self, people: Sequence[ActivePerson], now: datetime) -> set[int]:
        """Write these people, and return those of them whom somebody has deleted.

        Raises RegistryError; they still count as changed then.
        """
        gone: set[int] = set()
        for start in range(0, len(people), _AT_ONCE):
            gone |= await self._write_some(people[start : start + _AT_ONCE], now)
        return gone

    async def _write_some(self, people: Sequence[ActivePerson], now: datetime) -> set[int]:
        stays = [one.unwritten for one in people]
        for present in people:
            self._changed.pop(present.global_id, None)
            present.unwritten = {}
        try:
            return await self._write(people, stays, now)
        except BaseException:
            self._counters["write_failures"] += 1
            for present, unwritten in zip(people, stays, strict=True):
                self._changed.setdefault(present.global_id, present)
                present.unwritten = unwritten | present.unwritten
            raise

    async def _write(
        self,
        people: Sequence[ActivePerson],
        stays: Sequence[dict[tuple[str, datetime], VisitSegment]],
        now: datetime,
    ) -> set[int]:
        there = await self._store.existing_ids([one.global_id for one in people])
        kept = [one for one in people if one.global_id in there]
        moved = [(one, face.copy()) for one in kept for face in one.moved_faces()]
        await self._store.write_counters([one.person for one in kept], now)
        await self._store.write_centroids([(one.global_id, face) for one, face in moved])
        for present, face in moved:
            present.written[face.space] = face
        pieces = [stay for few in stays for stay in few.values() if stay.global_id in there]
        await self._store.write_segments(pieces)
        self._counters["written"] += len(kept)
        return {one.global_id for one in people} - there
