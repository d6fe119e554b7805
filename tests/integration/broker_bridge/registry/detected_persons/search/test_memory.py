"""The search in memory against a real MongoDB, once with each driver."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from pymongo import MongoClient, ReplaceOne
from pymongo.collection import Collection

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.documents import centroid_to_document
from broker_bridge.registry.detected_persons.search.memory import InMemoryFaceSearch
from deploy.local.stack import Mongod
from tests.waiting import until

SPACE = EmbeddingSpace("face:test-8", 8)
OTHER = EmbeddingSpace("face:other-8", 8)
ALICE, BOB = np.eye(8, dtype=np.float32)[:2]
BETWEEN = ((ALICE + BOB) / np.sqrt(2)).astype(np.float32)
AXES = list(np.eye(8, dtype=np.float32))


def known(vector: Any, centroid_norm: float = 1.0, space: EmbeddingSpace = SPACE) -> FaceCentroid:
    return FaceCentroid.restored(space.id, np.asarray(vector, np.float32), centroid_norm, 1.0)


def someone(random: np.random.Generator) -> FaceCentroid:
    vector = random.standard_normal(8)
    return known(vector / np.linalg.norm(vector), float(random.uniform(0.5, 1.0)))


class OtherProgram:
    """Another client of the database, which writes faces."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self.client = client
        self.faces: Collection[dict[str, Any]] = client[database].person_faces

    def write(self, people: dict[int, FaceCentroid]) -> None:
        documents = [centroid_to_document(number, face) for number, face in people.items()]
        self.faces.bulk_write([ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in documents])

    def update(self, number: int, face: FaceCentroid) -> None:
        document = centroid_to_document(number, face)
        self.faces.update_one({"_id": document.pop("_id")}, {"$set": document}, upsert=True)

    def delete(self, *numbers: int) -> None:
        self.faces.delete_many({"person": {"$in": numbers}})


@pytest.fixture
def other(mongod: Mongod, mongo_database: str) -> Iterator[OtherProgram]:
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod.uri) as client:
        yield OtherProgram(client, mongo_database)


@contextlib.asynccontextmanager
async def followed(index: InMemoryFaceSearch) -> AsyncIterator[InMemoryFaceSearch]:
    """While it follows the change stream."""
    running = asyncio.create_task(index.follow_changes())
    try:
        yield index
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def index(registry: Registry) -> AsyncIterator[InMemoryFaceSearch]:
    async with followed(InMemoryFaceSearch(registry.mongo, registry.tracker_store)) as following:
        yield following


async def means(index: InMemoryFaceSearch) -> dict[int, list[float]]:
    """Return all means, rounded, from one search per axis."""
    answers = await index.candidates(SPACE, AXES, 10_000, -1.0)
    found: dict[int, list[float]] = {}
    for axis, answer in enumerate(answers):
        for one in answer:
            found.setdefault(one.global_id, [0.0] * 8)[axis] = round(one.similarity, 4)
    return found


async def fresh_means(registry: Registry) -> dict[int, list[float]]:
    return await means(InMemoryFaceSearch(registry.mongo, registry.tracker_store))


async def nearest(index: InMemoryFaceSearch, vector: Any, floor: float = 0.5) -> list[tuple[int, float]]:
    (answer,) = await index.candidates(SPACE, [vector], 5, floor)
    return [(one.global_id, round(one.similarity, 3)) for one in answer]


async def test_candidates_are_ordered_by_mean_cosine(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram
) -> None:
    """A small centroid norm lowers the similarity; the floor excludes persons."""
    other.write({1: known(ALICE, 0.7), 2: known(BETWEEN, 1.0), 3: known(BOB), 4: known(ALICE, 0.5)})
    other.update(5, known(ALICE, space=OTHER))
    assert await nearest(index, ALICE, 0.6) == [(2, 0.707), (1, 0.7)]
    both = await index.candidates(SPACE, [ALICE, BOB], 1, 0.6)
    assert [one.global_id for (one,) in both] == [2, 3]


async def test_an_empty_space_has_no_candidates(index: InMemoryFaceSearch) -> None:
    """An empty space answers, also to no question at all."""
    assert await index.candidates(SPACE, [ALICE], 5, 0.5) == [[]]
    assert await index.candidates(SPACE, [], 5, 0.5) == []


async def test_writes_of_other_programs_are_applied(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram
) -> None:
    """Inserts, updates and deletions are applied without a reload."""
    other.write({1: known(ALICE)})
    await index.prepare_space(SPACE)
    other.write({2: known(BOB)})
    other.update(1, known(BETWEEN, 0.9))
    await until(lambda: is_so(nearest(index, BETWEEN), [(1, 0.9), (2, 0.707)]))
    other.faces.update_one({"_id": f"1 {SPACE.id}"}, {"$set": {"consistency": 0.8}})
    await until(lambda: is_so(nearest(index, BETWEEN), [(1, 0.8), (2, 0.707)]))
    other.delete(1)
    await until(lambda: is_so(nearest(index, BETWEEN), [(2, 0.707)]))
    assert index.counters["loads"] == 1


async def heard(index: InMemoryFaceSearch) -> int:
    return index.counters["changes"]


async def is_so(question: Any, expected: Any) -> bool:
    return bool(await question == expected)


async def test_a_local_write_is_found_at_once(registry: Registry) -> None:
    """Before MongoDB has it, and whether or not the space was asked about before."""
    index = InMemoryFaceSearch(registry.mongo, registry.tracker_store)
    index.record_centroid(1, known(ALICE))
    assert await nearest(index, ALICE) == [(1, 1.0)]
    index.record_centroid(1, known(BOB, 0.9))
    index.record_centroid(2, known(ALICE, 0.8))
    assert await nearest(index, ALICE) == [(2, 0.8)]
    index.record_deletion(2)
    assert await nearest(index, ALICE) == []
    assert await nearest(index, BOB) == [(1, 0.9)]


async def test_an_older_change_overrides_a_local_write_until_the_next(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram
) -> None:
    """The stream reports the earlier local write first, then the later one."""
    await index.prepare_space(SPACE)
    other.write({1: known(ALICE)})
    index.record_centroid(1, known(BETWEEN))
    await until(lambda: is_so(nearest(index, ALICE), [(1, 1.0)]))
    index.record_centroid(1, known(BETWEEN, 0.9))
    assert await nearest(index, BETWEEN) == [(1, 0.9)]
    other.update(1, known(BETWEEN, 0.9))
    other.write({2: known(BETWEEN, 0.6)})
    await until(lambda: is_so(nearest(index, BETWEEN), [(1, 0.9), (2, 0.6)]))
    assert await means(index) == await fresh_means(registry)


async def test_local_writes_survive_a_reload(registry: Registry, other: OtherProgram) -> None:
    """Changes were lost while this program's own writes are still to come."""
    other.write({1: known(BOB), 3: known(ALICE)})
    index = InMemoryFaceSearch(registry.mongo, registry.tracker_store)
    await index.prepare_space(SPACE)
    index.record_centroid(2, known(ALICE, 0.9))
    index.record_deletion(3)
    other.write({1: known(BETWEEN)})
    index._invalidate()
    assert await nearest(index, ALICE, 0.65) == [(2, 0.9), (1, 0.707)]
    assert index.counters["loads"] == 2


async def test_a_local_write_that_never_reaches_mongodb_is_undone(
    registry: Registry, other: OtherProgram
) -> None:
    """After a failed write, or one to a deleted person, MongoDB's state counts."""
    other.write({1: known(ALICE)})
    async with followed(
        InMemoryFaceSearch(registry.mongo, registry.tracker_store, confirm_seconds=0.05)
    ) as index:
        await index.prepare_space(SPACE)
        index.record_centroid(1, known(BOB))
        index.record_centroid(2, known(BOB))
        index.record_deletion(1)
        await until(lambda: is_so(means(index), {1: [1.0] + [0.0] * 7}))


async def test_a_confirmed_local_write_is_settled(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram
) -> None:
    """The change that confirms it also settles it."""
    await index.prepare_space(SPACE)
    index.record_centroid(1, known(ALICE))
    other.write({1: known(ALICE)})
    other.write({2: known(BOB)})
    await until(lambda: is_so(nearest(index, BOB), [(2, 1.0)]))
    (faces,) = index._spaces.values()
    assert not faces._unconfirmed
    assert await nearest(index, ALICE) == [(1, 1.0)]


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_changes_the_index_is_what_a_fresh_one_would_be(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram, seed: int
) -> None:
    """Written while it loads, while it follows, and by this program too."""
    random = np.random.default_rng(seed)
    other.write({number: someone(random) for number in range(300)})

    def write() -> None:
        for _ in range(60):
            numbers = [int(number) for number in random.integers(0, 400, 5)]
            other.write({number: someone(random) for number in numbers[:2]})
            other.update(numbers[2], someone(random))
            other.delete(*numbers[3:])

    writing = asyncio.create_task(asyncio.to_thread(write))
    await index.prepare_space(SPACE)
    own = np.random.default_rng(seed + 100)
    for number in range(400, 420):
        face = someone(own)
        index.record_centroid(number, face)
        await registry.tracker_store.write_centroids([(number, face)])
        await index.candidates(SPACE, [face.unit], 5, 0.5)
    await writing
    expected = await fresh_means(registry)
    assert len(expected) > 200
    await until(lambda: is_so(means(index), expected))
    assert index.counters["loads"] == 1


async def test_a_replaced_collection_is_read_again(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram
) -> None:
    """After a drop, a rename or a dropped database the index equals MongoDB."""
    await index.prepare_space(SPACE)
    # Heard, and not taken in yet when the collection goes.
    other.write({1: known(ALICE), 2: known(BOB), 9: known(ALICE)})
    await until(lambda: is_so(heard(index), 3))
    other.faces.drop()
    other.write({2: known(ALICE, 0.9), 3: known(BOB)})
    await until(lambda: is_so(nearest(index, ALICE), [(2, 0.9)]))

    backup = other.faces.database.restored_faces
    backup.insert_one(centroid_to_document(7, known(ALICE, 0.8)))
    backup.rename("person_faces", dropTarget=True)
    await until(lambda: is_so(nearest(index, ALICE), [(7, 0.8)]))

    other.client.drop_database(other.faces.database.name)
    await until(lambda: is_so(nearest(index, ALICE), []))
    other.write({8: known(ALICE)})
    await until(lambda: is_so(nearest(index, ALICE), [(8, 1.0)]))


async def test_a_stream_that_cannot_resume_leads_to_a_reload(registry: Registry, other: OtherProgram) -> None:
    """Where it stood is no longer known to the server: what was missed is read."""
    index = InMemoryFaceSearch(registry.mongo, registry.tracker_store)
    await index.prepare_space(SPACE)
    index._token = {"_data": "8200"}
    other.write({1: known(ALICE)})
    assert await nearest(index, ALICE) == []
    async with followed(index):
        await until(lambda: is_so(nearest(index, ALICE), [(1, 1.0)]))
    assert index.counters["stream_breaks"] > 0
    assert index.counters["loads"] == 2


async def test_changes_before_following_are_applied(registry: Registry, other: OtherProgram) -> None:
    """Between loading and following nothing gets lost, nor while following pauses."""
    index = InMemoryFaceSearch(registry.mongo, registry.tracker_store)
    await index.prepare_space(SPACE)
    other.write({1: known(ALICE)})
    async with followed(index):
        await until(lambda: is_so(nearest(index, ALICE), [(1, 1.0)]))
    other.write({2: known(ALICE, 0.9)})
    async with followed(index):
        await until(lambda: is_so(nearest(index, ALICE), [(1, 1.0), (2, 0.9)]))
    assert (index.counters["loads"], index.counters["changes"]) == (1, 2)


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_following_resumes_after_mongodb_was_away(own_mongod: Mongod, driver: Any) -> None:
    """The server dies and comes back: nothing is read again, and nothing is missed."""
    registry = await Registry.open(MongoSettings(uri=SecretStr(own_mongod.uri), driver=driver))
    client: MongoClient[dict[str, Any]]
    with MongoClient(own_mongod.uri) as client:
        other = OtherProgram(client, "wfm")
        other.write({1: known(ALICE)})
        async with followed(InMemoryFaceSearch(registry.mongo, registry.tracker_store)) as index:
            await index.prepare_space(SPACE)
            other.write({2: known(BOB)})
            await until(lambda: is_so(nearest(index, BOB), [(2, 1.0)]))
            await asyncio.to_thread(own_mongod.kill)
            await asyncio.to_thread(own_mongod.start)
            await asyncio.to_thread(other.write, {3: known(BOB, 0.9)})
            await until(lambda: is_so(nearest(index, BOB), [(2, 1.0), (3, 0.9)]))
            assert index.counters["loads"] == 1
    await registry.close()


async def test_a_face_that_cannot_be_compared_is_left_out(
    registry: Registry, index: InMemoryFaceSearch, other: OtherProgram
) -> None:
    """One damaged document does not stop the search."""
    spoilt = centroid_to_document(1, known(ALICE))
    spoilt["vector"] = spoilt["vector"][:22]
    other.faces.insert_one(spoilt)
    other.write({2: known(ALICE, 0.9)})
    assert await nearest(index, ALICE) == [(2, 0.9)]
    assert index.counters["unusable"] == 1
