"""Check by random histories: one id per person, no sighting lost or doubled."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry import MongoSettings, Registry, RegistryError
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.tracking.tracker import Tracker
from deploy.local.stack import Mongod
from tests.space_limits import ensure_with_limits
from tests.tracking_samples import SPACE, Faces, at, observed

PEOPLE = 4
WAITS = (
    "existing_ids",
    "write_counters",
    "write_centroids",
    "write_segments",
    "centroids_of",
    "segments_since",
    "find_linked",
    "create",
    "take_ids",
)

person = st.integers(0, PEOPLE - 1)
looks = st.lists(person, min_size=2, max_size=8)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("meet"), st.lists(person, min_size=1, max_size=4), looks),
        st.tuples(st.sampled_from(["sync", "stop", "kill", "away", "read anew"]), looks),
        st.tuples(st.just("fail"), st.sampled_from(WAITS), st.booleans(), looks),
        st.tuples(st.just("merge"), person, person, looks),
        st.tuples(st.sampled_from(["part", "delete"]), person),
    ),
    min_size=8,
    max_size=30,
)


@dataclass
class Mongo:
    """The tracker's store with failures, and with sightings at every wait."""

    store: Any
    looks: list[int] = field(default_factory=list)
    fails: tuple[str, bool] | None = None
    world: Any = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        if name not in WAITS:
            return method

        async def asked(*given: Any) -> Any:
            fails = self.fails if self.fails and self.fails[0] == name else None
            self.fails = None if fails else self.fails
            if fails and not fails[1]:
                raise RegistryError("before")
            self.world.look_once()
            answer = await method(*given)
            self.world.look_once()
            if fails:
                raise RegistryError("after")
            return answer

        return asked


class World:
    """A tracker with the expected id, merges and sightings of each person."""

    def __init__(self, registry: Registry, faces: Faces) -> None:
        self.registry = registry
        self.store = Mongo(registry.tracker_store, world=self)
        self.faces: list[Vector] = [faces.person() for _ in range(PEOPLE)]
        self.like = faces.like
        self.now = 0.0
        self.number: dict[int, int] = {}
        self.into: dict[int, int] = {}
        self.seen: Counter[int] = Counter()
        self.written: Counter[int] = Counter()
        self.used: set[int] = set()
        self.tracker = self._new_tracker()

    def _new_tracker(self) -> Tracker:
        watched: Any = replace(self.registry, tracker_store=self.store)
        return Tracker(watched, TrackingSettings())

    def root(self, number: int) -> int:
        while number in self.into:
            number = self.into[number]
        return number

    def observe(self, one: int) -> Any:
        self.now += 1
        return observed(self.like(self.faces[one], 0.9), camera=f"cam-{one}", track=f"t{one}", at=self.now)

    def look_once(self) -> None:
        if self.store.looks:
            one = self.store.looks.pop()
            told = self.tracker.match_active(self.observe(one))
            if told is not None:
                self.hear(one, told.global_id)

    def hear(self, one: int, told: int) -> None:
        """Check that a person gets its own id and no second one."""
        if one not in self.number:
            assert told not in self.used
            self.number[one] = told
            self.used.add(told)
        assert self.root(told) == self.root(self.number[one])
        self.seen[told] += 1

    async def play(self, step: tuple[Any, ...]) -> None:
        name, *given = step
        self.store.looks = list(given.pop()) if name not in ("part", "delete") else []
        await getattr(self, name.replace(" ", "_"))(*given)
        self.store.looks = []

    async def meet(self, together: list[int]) -> None:
        told = await self.tracker.assign_batch([self.observe(one) for one in together])
        for one, assignment in zip(together, told, strict=True):
            self.hear(one, assignment.global_id)

    async def sync(self) -> None:
        await self.tracker.write_pending(at(self.now))
        self.written |= Counter(await self.counted())

    async def fail(self, name: str, after: bool) -> None:
        """MongoDB is away for one question of a sync, which it may have carried out."""
        self.store.fails = (name, after)
        with suppress(RegistryError):
            await self.tracker.write_pending(at(self.now))
        self.store.fails = None

    async def stop(self) -> None:
        self.store.looks = []
        await self.sync()
        assert await self.counted() == self.seen
        await self.kill()

    async def kill(self) -> None:
        """What was not written is lost, and nothing else."""
        counted = await self.counted()
        assert all(self.written[one] <= counted[one] <= self.seen[one] for one in self.seen)
        self.seen, self.written = Counter(counted), Counter(counted)
        self.tracker = self._new_tracker()
        await self.tracker.load_recent(at(self.now))

    async def away(self) -> None:
        self.now += 100
        await self.sync()

    async def read_anew(self) -> None:
        await self.tracker.reload_all(at(self.now))

    async def merge(self, source: int, target: int) -> None:
        if {source, target} <= self.number.keys():
            one, other = self.root(self.number[source]), self.root(self.number[target])
            if one != other:
                await self.registry.detected_person_edits.merge(one, other, by="operator", now=at(self.now))
                self.into[one] = other
                await self.tracker.reload([one, other], at(self.now))

    async def part(self, source: int) -> None:
        number = self.number.get(source)
        if number in self.into:
            del self.into[number]
            await self.registry.detected_person_edits.unmerge(number, by="operator", now=at(self.now))
            await self.tracker.reload_all(at(self.now))

    async def delete(self, one: int) -> None:
        if one in self.number:
            root = self.root(self.number[one])
            gone = await self.registry.detected_person_edits.delete(root, by="operator", now=at(self.now))
            await self.tracker.drop_deleted(gone)
            assert {number for number in self.used if self.root(number) == root} == set(gone)
            self.used -= set(gone)
            self.number = {one: number for one, number in self.number.items() if number not in gone}
            self.into = {source: into for source, into in self.into.items() if source not in gone}
            for number in gone:
                del self.seen[number], self.written[number]

    async def counted(self) -> Counter[int]:
        """What MongoDB says, by number."""
        cursor = self.registry.mongo.db.persons.find({"_id": {"$in": sorted(self.used)}})
        return Counter({found["_id"]: found["total_detections"] async for found in cursor})


@pytest.fixture(scope="module")
def stage(mongod: Mongod) -> Iterator[tuple[asyncio.AbstractEventLoop, Registry, Faces]]:
    """One registry for all examples: each has people of its own."""
    loop = asyncio.new_event_loop()
    database = f"wfm_test_{secrets.token_hex(6)}"
    mongo = MongoSettings(uri=SecretStr(mongod.uri), database=database)
    registry = loop.run_until_complete(Registry.open(mongo))
    loop.run_until_complete(ensure_with_limits(registry, EmbeddingSpace(SPACE, 512)))
    following = loop.create_task(registry.face_search.follow_changes())
    yield loop, registry, Faces()
    following.cancel()
    loop.run_until_complete(asyncio.gather(following, return_exceptions=True))
    loop.run_until_complete(registry.mongo.db.client.drop_database(database))
    loop.run_until_complete(registry.close())
    loop.close()


@settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(steps=steps)
def test_each_person_keeps_one_id_and_each_sighting_is_counted_once(
    stage: tuple[asyncio.AbstractEventLoop, Registry, Faces], steps: list[tuple[Any, ...]]
) -> None:
    """Through writes, failures, kills, merges and deletions, with sightings at waits."""
    loop, registry, faces = stage

    async def play() -> None:
        world = World(registry, faces)
        everybody = ("meet", list(range(PEOPLE)), [])
        for step in [everybody, *steps, ("stop", [])]:
            await world.play(step)
            assert len(set(world.number.values())) == len(world.number)

    loop.run_until_complete(play())
