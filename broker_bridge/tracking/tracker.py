"""One person, one global id, on every camera (seed 004): who an observation is of.

First the people who are here, in memory; then everybody ever seen, of whom the nearest are loaded beside
them; then the detected person of whoever is enrolled with that face; else somebody new. A new global id is
durable in MongoDB before anybody is told it, and comes from a block that was taken from a counter: no crash
and no second tracker can give it to anybody else.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.contract.messages import Assignment
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import DetectedPerson, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.settings import RegistrySettings

from .active_set import ActivePerson, ActiveSet, TrackMatch
from .identity_links import IdentityLinks
from .loading import load_active
from .write_behind import WriteBehind

# Seed 004: the nearest five of everybody are looked at.
_CANDIDATES = 5
_IDS_AT_ONCE = 64


@dataclass(frozen=True)
class _Found:
    """What the indexes say of an observation: detected persons who may be it, and who is enrolled with it."""

    groups: tuple[MergeGroup, ...] = ()
    user_id: str | None = None


class TrackerLeaseLostError(RegistryError):
    """Another tracker may have met them by now."""


class Tracker:
    """Follows people, while it is the only one; `sync` is to be called every few seconds and at the end.

    `may_track` is asked before somebody new is made: this process may have been frozen since it looked.

    `counters` has how people were told: `by_stay`, `by_face`, `by_position`, `by_enrolled`, `by_new` (see
    Match); how many were `loaded` from everybody ever seen; how many were `unsure`, since they are hardly
    like enough or somebody else is as like; and what was `written`.
    """

    def __init__(
        self,
        registry: Registry,
        settings: TrackingSettings,
        people: RegistrySettings,
        *,
        may_track: Callable[[], bool] = lambda: True,
    ) -> None:
        self._registry = registry
        self._store = registry.tracker_store
        self._settings = settings
        self._may_track = may_track
        self._timeout = timedelta(seconds=settings.person_timeout)
        self._active = ActiveSet(settings)
        self._new: list[ActivePerson] = []
        self._ids: deque[int] = deque()
        self._highest_id = 0
        self._meeting = asyncio.Lock()
        self._writing = asyncio.Lock()
        self.counters: Counter[str] = Counter()
        self.links = IdentityLinks(registry, people)
        self._writer = WriteBehind(self._store, self.counters)

    def __len__(self) -> int:
        """How many people are in memory."""
        return len(self._active)

    async def load_recent(self, now: datetime) -> None:
        """Take over: load who was seen in the last half minute. Raises RegistryError."""
        async with self._meeting:
            # The database may have been restored: another tracker may give these.
            self._ids.clear()
            seen = await self._store.ids_seen_since(now - self._timeout)
            groups = await self._registry.detected_person_queries.find_groups(seen)
            for present in await self._load(groups.values()):
                self._active.add(present)

    # Who it is

    async def match_or_create(self, seen: ObservedFace) -> Assignment:
        """Who `seen` is. Raises RegistryError when somebody has to be looked up or created and cannot be."""
        return self.match_active(seen) or (await self.assign_batch([seen]))[0]

    def match_active(self, seen: ObservedFace) -> Assignment | None:
        """Who `seen` is, if that is somebody in memory whose global id may be told."""
        match = self._active.match(seen)
        if match is None or not match.present.is_stored or not self._active.is_settled(match, seen):
            return None
        return self._take(match, seen)

    async def assign_batch(self, batch: Sequence[ObservedFace]) -> list[Assignment]:
        """Who each of `batch` is, if need be somebody new, who is durable when this returns.

        Raises RegistryError; what was seen is then counted, or not, and nobody is told anything.
        """
        async with self._meeting:
            assignments: dict[int, Assignment] = {}
            waiting = dict(enumerate(batch))
            asked = {place: seen for place, seen in waiting.items() if not self._is_settled(seen)}
            while waiting:
                taken = await self._meet_some(waiting, asked)
                assignments |= taken
                # Who was in memory, and by now is elsewhere in the picture or gone, is looked up as well.
                asked = waiting = {place: seen for place, seen in waiting.items() if place not in taken}
            await self._store_new()
            return [assignments[place] for place in range(len(batch))]

    def _is_settled(self, seen: ObservedFace) -> bool:
        match = self._active.match(seen)
        return match is not None and self._active.is_settled(match, seen)

    async def _meet_some(
        self, waiting: Mapping[int, ObservedFace], asked: Mapping[int, ObservedFace]
    ) -> dict[int, Assignment]:
        """Who those of `waiting` are, of whom those in `asked` are looked up: the others may remain."""
        found = await self._look_up(asked)
        await self._provide_ids(len(asked))
        loaded = await self._load(group for one in found.values() for group in one.groups)
        if not self._may_track():
            raise TrackerLeaseLostError("the tracker's lease is lost")
        # From here to the end of the decisions nothing is waited for: nobody else comes or goes.
        for present in loaded:
            self._active.add(present)
        taken: dict[int, Assignment] = {}
        met: set[int] = set()
        for place, seen in waiting.items():
            match = self._decide(seen, found.get(place))
            if match is not None:
                taken[place] = self._take(match, seen)
                met.add(match.present.global_id)
        self._active.remove(one.global_id for one in loaded if one.global_id not in met)
        self.counters["loaded"] += sum(one.global_id in met for one in loaded)
        return taken

    def _decide(self, seen: ObservedFace, found: _Found | None) -> TrackMatch | None:
        """None for somebody who is not in memory and was not looked up."""
        match = self._active.match(seen)
        if match is None and found is not None:
            match = self._enrolled_match(seen, found) or self._create(seen, found)
        return match

    def _enrolled_match(self, seen: ObservedFace, found: _Found) -> TrackMatch | None:
        present = self._active.with_user(found.user_id, seen) if found.user_id else None
        return None if present is None else TrackMatch(present, None, "enrolled", sure=False)

    def _create(self, seen: ObservedFace, found: _Found) -> TrackMatch:
        person = DetectedPerson.create(self._ids.popleft(), seen, found.user_id)
        face = FaceCentroid.of(seen.space, seen.vector, seen.quality)
        present = ActivePerson(person, {seen.space: face}, is_stored=False)
        self._active.add(present)
        self._new.append(present)
        return TrackMatch(present, None, "new", sure=False)

    def _take(self, match: TrackMatch, seen: ObservedFace) -> Assignment:
        present = match.present
        self._active.note(match, seen)
        present.see(seen, self._timeout)
        self._writer.note(present)
        self.counters[f"by_{match.by}"] += 1
        self.counters["unsure"] += match.by == "face" and not match.sure
        return Assignment(
            track_id=seen.track_id,
            global_id=present.global_id,
            user_id=self.links.shown(present.person.user_id),
            similarity=match.similarity and max(-1.0, min(1.0, round(match.similarity, 4))),
        )

    # Who it may be

    async def _look_up(self, asked: Mapping[int, ObservedFace]) -> dict[int, _Found]:
        """What the indexes say of each."""
        found: dict[int, _Found] = {}
        for space in sorted({seen.space for seen in asked.values()}):
            places = [place for place, seen in asked.items() if seen.space == space]
            answers = await self._look_up_in(space, [asked[place].vector for place in places])
            found |= zip(places, answers, strict=True)
        return found

    async def _look_up_in(self, space_id: str, vectors: Sequence[Vector]) -> list[_Found]:
        space = EmbeddingSpace(space_id, len(vectors[0]))
        limits = self._settings.limits_in(space_id)
        candidates = await self._registry.face_search.candidates(space, vectors, _CANDIDATES, limits.floor)
        users = await self.links.who(space, vectors)
        enrolled = [user_id for user_id in users if user_id]
        known_as = await self._store.find_linked(enrolled) if enrolled else {}
        ids = {one.global_id for few in candidates for one in few} | set(known_as.values())
        # A stranger, as most who are looked up, is not asked about any further.
        family_of = await self._registry.detected_person_queries.find_groups(ids) if ids else {}
        found = []
        for few, user_id in zip(candidates, users, strict=True):
            may_be = [one.global_id for one in few]
            if user_id in known_as:
                may_be.append(known_as[user_id])
            found.append(_Found(tuple(family_of[one] for one in may_be if one in family_of), user_id))
        return found

    async def _load(self, groups: Iterable[MergeGroup]) -> list[ActivePerson]:
        """Those families who are not in memory, as MongoDB has them."""
        wanted = {one.root.global_id: one for one in groups if one.root.global_id not in self._active}
        await self.links.learn(group.aggregate.user_id for group in wanted.values())
        return await load_active(self._registry, wanted, self._timeout)

    # New people

    async def _provide_ids(self, count: int) -> None:
        while len(self._ids) < count:
            taken = await self._store.take_ids(max(_IDS_AT_ONCE, count), self._highest_id)
            self._highest_id = taken[-1]
            self._ids.extend(taken)

    async def _store_new(self) -> None:
        """Make new people durable; those for whom it fails are tried again when they are seen again."""
        new = list(self._new)
        await self._store.create([(one.person, next(iter(one.faces.values()))) for one in new])
        for present in new:
            present.is_stored = True
            for space, face in present.faces.items():
                present.written[space] = face.copy()
                self._registry.face_search.record_centroid(present.global_id, face)
        del self._new[: len(new)]

    # What was seen, to MongoDB

    async def write_pending(self, now: datetime) -> None:
        """Write what was seen and let go of who has been away. Raises RegistryError; nothing is lost then."""
        async with self._writing:
            await self.links.link(self._active)
            await self.drop_deleted(await self._writer.write_all(now))
            away = [one.global_id for one in self._active if not one.person.is_active(now, self._timeout)]
            await self._let_go(away, now, lambda one: not one.person.is_active(now, self._timeout))

    async def reload(self, global_ids: Iterable[int], now: datetime) -> None:
        """Somebody has changed these people: write what is known here; seen again, they are read anew."""
        changed = set(global_ids)
        groups = await self._registry.detected_person_queries.find_groups(changed)
        changed |= {group.root.global_id for group in groups.values()}
        async with self._writing:
            await self._let_go(changed, now, lambda _: True)

    async def reload_all(self, now: datetime) -> None:
        """Nobody knows who was changed: as reload, for everybody; whoever is here is read at once."""
        async with self._writing:
            await self._let_go([one.global_id for one in self._active], now, lambda _: True)
        await self.load_recent(now)

    async def refresh_identities(self) -> None:
        """Enrolled people have come, gone or changed: tell of them as they are now. Raises RegistryError."""
        async with self._writing, self._meeting:
            await self.links.people_changed(self._active)

    def is_linked(self, global_id: int, user_id: str | None) -> bool:
        """Whether this is known here: who is not in memory is read when they are seen."""
        present = self._active.get(global_id)
        return present is None or present.person.user_id == user_id

    async def drop_deleted(self, global_ids: Iterable[int]) -> None:
        """Somebody has deleted these people: drop all that is known of them here."""
        gone = list(global_ids)
        async with self._meeting:
            self._active.remove(gone)
            self._writer.drop(gone)
            for global_id in gone:
                self._registry.face_search.record_deletion(global_id)

    async def _let_go(
        self, global_ids: Iterable[int], now: datetime, still: Callable[[ActivePerson], bool]
    ) -> None:
        """Write these people and drop those of whom `still` holds then. Meanwhile nobody is loaded."""
        async with self._meeting:
            going = [one for one in map(self._active.get, global_ids) if one is not None and one.is_stored]
            while going:
                await self._writer.write([one for one in going if one.global_id in self._writer], now)
                going = [one for one in going if still(one)]
                # Some may have been seen while they were written: those go the next time round.
                self._active.remove(one.global_id for one in going if one.global_id not in self._writer)
                going = [one for one in going if one.global_id in self._writer]
