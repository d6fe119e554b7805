"""Assign one global id per person across all cameras (seed 004).

An observed face is compared with the persons in memory; then with all detected persons, the nearest of which
are loaded; then with the enrolled identities; else it is a new person. A new global id is stored in MongoDB
before it is published, and comes from a reserved block: no crash and no second tracker can use it twice.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker_bridge.contract.messages import Assignment
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import DetectedPerson, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings

from .active_person import ActivePerson
from .active_set import ActiveSet
from .global_ids import GlobalIds
from .identity_links import IdentityLinks
from .loading import load_active
from .lookup import CandidateLookup, LookupResult
from .match_rules import TrackMatch
from .tracked_limits import TrackedLimits
from .write_behind import WriteBehind


class TrackerLeaseLostError(RegistryError):
    """The lease is lost: another tracker may have assigned the same observations."""


@dataclass
class _BatchItem:
    """An observation of a batch: pending, looked up if needed, assigned."""

    observed: ObservedFace
    needs_lookup: bool
    lookup: LookupResult | None = None
    assignment: Assignment | None = None


class Tracker:
    """Tracks persons while it is the only tracker.

    Call `write_pending` every few seconds and at the end.

    `may_track` is called before a new person is made: the process may have been frozen since the lease was
    renewed.

    `counters` has the assignments by rule (`by_stay`, `by_face`, `by_position`, `by_enrolled`, `by_new`, see
    TrackMatch); `loaded`, the persons that were loaded and matched; `unsure`, the matches by face that are
    hardly similar enough or as near to a second person; and `written` and `write_failures`.
    """

    def __init__(
        self,
        registry: Registry,
        settings: TrackingSettings,
        *,
        may_track: Callable[[], bool] = lambda: True,
    ) -> None:
        self._registry = registry
        self._store = registry.tracker_store
        self._may_track = may_track
        self._timeout = timedelta(seconds=settings.person_timeout)
        limits = TrackedLimits(registry.spaces, settings)
        self._active = ActiveSet(settings, limits)
        self._unstored: list[ActivePerson] = []
        self._ids = GlobalIds(self._store)
        # Persons enter and leave memory under the first; rounds of writing wait for each other at the second,
        # which is always taken first.
        self._membership_lock = asyncio.Lock()
        self._write_lock = asyncio.Lock()
        self.counters: Counter[str] = Counter()
        self.links = IdentityLinks(registry)
        self._lookup = CandidateLookup(registry, limits, self.links)
        self._writer = WriteBehind(self._store, self.counters)

    def __len__(self) -> int:
        """Return the number of persons in memory."""
        return len(self._active)

    async def load_recent(self, now: datetime) -> None:
        """Load the persons that were seen within the timeout before `now`.

        Raises RegistryError.
        """
        async with self._membership_lock:
            # The database may have been restored: another tracker may reserve the same ids.
            self._ids.drop_reserved()
            await self._registry.spaces.records()
            recent = await self._store.ids_seen_since(now - self._timeout)
            groups = await self._registry.detected_person_queries.find_groups(recent)
            for active in await self._load(groups.values()):
                self._active.add(active)

    # Assignment

    async def match_or_create(self, observed: ObservedFace) -> Assignment:
        """Return the assignment of `observed`. Raises RegistryError."""
        return self.match_active(observed) or (await self.assign_batch([observed]))[0]

    def match_active(self, observed: ObservedFace) -> Assignment | None:
        """Return the assignment of `observed` if memory settles it without MongoDB."""
        match = self._active.match(observed)
        if match is None or match.needs_lookup or not match.active.is_stored:
            return None
        return self._assign(match, observed)

    async def assign_batch(self, batch: Sequence[ObservedFace]) -> list[Assignment]:
        """Return an assignment for each of `batch`.

        New persons are stored when this returns.

        Raises RegistryError; a part of the batch may be counted then, and none of it is to be published.
        """
        async with self._membership_lock:
            items = [_BatchItem(observed, self._needs_lookup(observed)) for observed in batch]
            while pending := [item for item in items if item.assignment is None]:
                await self._assign_pending(pending)
            await self._store_new()
            return [item.assignment for item in items if item.assignment is not None]

    def _needs_lookup(self, observed: ObservedFace) -> bool:
        match = self._active.match(observed)
        return match is None or match.needs_lookup

    async def _assign_pending(self, pending: Sequence[_BatchItem]) -> None:
        """Assign the items that are looked up or match in memory.

        All others need a lookup after this.
        """
        loaded = await self._look_up([item for item in pending if item.needs_lookup])
        if not self._may_track():
            raise TrackerLeaseLostError("the tracker's lease is lost")
        # No await from here to the end of the decisions: no person enters or leaves memory meanwhile.
        for active in loaded:
            self._active.add(active)
        matched: set[int] = set()
        for item in pending:
            match = self._decide(item)
            if match is None:
                item.needs_lookup = True
                continue
            item.assignment = self._assign(match, item.observed)
            matched.add(match.active.global_id)
        self._active.remove(one.global_id for one in loaded if one.global_id not in matched)
        self.counters["loaded"] += sum(one.global_id in matched for one in loaded)

    async def _look_up(self, items: Sequence[_BatchItem]) -> list[ActivePerson]:
        """Give each item its lookup result and a global id in reserve.

        Return the loaded candidates.
        """
        results = await self._lookup.look_up([item.observed for item in items])
        for item, result in zip(items, results, strict=True):
            item.lookup = result
        await self._ids.reserve(len(items))
        return await self._load(group for result in results for group in result.groups)

    def _decide(self, item: _BatchItem) -> TrackMatch | None:
        """Return the match of an item.

        None if no person in memory matches and it was not looked up.
        """
        match = self._active.match(item.observed)
        if match is None and item.lookup is not None:
            match = self._match_enrolled(item.observed, item.lookup) or self._create(
                item.observed, item.lookup
            )
        return match

    def _match_enrolled(self, observed: ObservedFace, lookup: LookupResult) -> TrackMatch | None:
        active = self._active.find_linked(lookup.user_id, observed) if lookup.user_id else None
        return None if active is None else TrackMatch(active, None, "enrolled")

    def _create(self, observed: ObservedFace, lookup: LookupResult) -> TrackMatch:
        record = DetectedPerson.create(self._ids.take(), observed, lookup.user_id)
        centroid = FaceCentroid.from_vector(observed.space, observed.vector, observed.quality)
        active = ActivePerson(record, {observed.space: centroid}, is_stored=False)
        self._active.add(active)
        self._unstored.append(active)
        return TrackMatch(active, None, "new")

    def _assign(self, match: TrackMatch, observed: ObservedFace) -> Assignment:
        active = match.active
        self._active.record_sighting(match, observed)
        active.count_sighting(observed, self._timeout)
        self._writer.schedule(active)
        self.counters[f"by_{match.by}"] += 1
        self.counters["unsure"] += match.by == "face" and not match.is_sure
        return Assignment(
            track_id=observed.track_id,
            global_id=active.global_id,
            user_id=self.links.shown_user_id(active.record.user_id),
            similarity=match.similarity and max(-1.0, min(1.0, round(match.similarity, 4))),
        )

    async def _load(self, groups: Iterable[MergeGroup]) -> list[ActivePerson]:
        """Return the persons of `groups` that are not in memory, as MongoDB has them."""
        missing = {
            group.root.global_id: group for group in groups if group.root.global_id not in self._active
        }
        await self.links.load_shown(group.aggregate.user_id for group in missing.values())
        return await load_active(self._registry, missing, self._timeout)

    async def _store_new(self) -> None:
        """Store new persons; after a failure the next batch stores them."""
        unstored = list(self._unstored)
        await self._store.create([(one.record, next(iter(one.centroids.values()))) for one in unstored])
        for active in unstored:
            active.is_stored = True
            for space, centroid in active.centroids.items():
                active.stored_centroids[space] = centroid.copy()
                self._registry.face_search.record_centroid(active.global_id, centroid)
        del self._unstored[: len(unstored)]

    # Writing, and changes by other programs

    async def write_pending(self, now: datetime) -> None:
        """Write the sightings and evict persons past the timeout.

        Raises RegistryError and keeps all then.
        """

        def is_away(active: ActivePerson) -> bool:
            return not active.record.is_active(now, self._timeout)

        async with self._write_lock:
            await self.links.link_identities(self._active)
            await self.drop_deleted(await self._writer.write_all(now))
            away = [active.global_id for active in self._active if is_away(active)]
            await self._evict(away, now, only_if=is_away)

    async def reload(self, global_ids: Iterable[int], now: datetime) -> None:
        """Write and evict persons that another program has changed.

        The next sighting reads them again.
        """
        changed = set(global_ids)
        groups = await self._registry.detected_person_queries.find_groups(changed)
        changed |= {group.root.global_id for group in groups.values()}
        async with self._write_lock:
            await self._evict(changed, now)

    async def reload_all(self, now: datetime) -> None:
        """Write and evict all persons, then read the recent ones again."""
        async with self._write_lock:
            await self._evict([active.global_id for active in self._active], now)
        await self.load_recent(now)

    async def refresh_identities(self) -> None:
        """Read the enrolled identities of the persons in memory again.

        Raises RegistryError.
        """
        async with self._write_lock, self._membership_lock:
            await self.links.refresh(self._active)

    def is_linked(self, global_id: int, user_id: str | None) -> bool:
        """Return whether memory has this link, or does not have the person."""
        active = self._active.get(global_id)
        return active is None or active.record.user_id == user_id

    async def drop_deleted(self, global_ids: Iterable[int]) -> None:
        """Drop persons that were deleted in MongoDB, with their pending counters."""
        deleted = list(global_ids)
        async with self._membership_lock:
            self._active.remove(deleted)
            self._writer.cancel(deleted)
            for global_id in deleted:
                self._registry.face_search.record_deletion(global_id)

    async def _evict(
        self,
        global_ids: Iterable[int],
        now: datetime,
        *,
        only_if: Callable[[ActivePerson], bool] = lambda _: True,
    ) -> None:
        """Write these persons and evict those that satisfy `only_if` after the write.

        No person is loaded meanwhile.
        """
        async with self._membership_lock:
            leaving = [one for one in map(self._active.get, global_ids) if one is not None and one.is_stored]
            while leaving:
                await self._writer.write([one for one in leaving if one in self._writer], now)
                leaving = [one for one in leaving if only_if(one)]
                # A person that was seen during the write is written again in the next round.
                unwritten = [one for one in leaving if one in self._writer]
                self._active.remove(one.global_id for one in leaving if one not in self._writer)
                leaving = unwritten
