"""A change stream of either driver ends with an error when its collection does."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr

from broker_bridge.change_streams import wake_on
from broker_bridge.registry.mongo.change_stream import concerns_collections
from broker_bridge.registry.mongo.client import Mongo, MongoSettings
from broker_bridge.registry.mongo.errors import RegistryError, StreamEndedError, cannot_resume
from broker_bridge.registry.mongo.resume import check_unbroken
from deploy.local.stack import Mongod
from tests.waiting import until

INSERTS = [{"$match": {"operationType": "insert"}}]


@pytest.fixture(params=["pymongo", "motor"])
async def mongo(mongod: Mongod, mongo_database: str, request: pytest.FixtureRequest) -> AsyncIterator[Mongo]:
    opened = Mongo(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database, driver=request.param))
    await opened.db.things.insert_one({"_id": 0})
    yield opened
    await opened.close()


async def drop(mongo: Mongo) -> None:
    await mongo.db.things.drop()


async def rename(mongo: Mongo) -> None:
    await mongo.db.things.rename("earlier_things")


async def replace(mongo: Mongo) -> None:
    """Replace the collection by another one, as some tools restore it."""
    await mongo.db.restored.insert_one({"_id": 7})
    await mongo.db.restored.rename("things", dropTarget=True)


async def drop_database(mongo: Mongo) -> None:
    await mongo.db.client.drop_database(mongo.db.name)


async def restore(mongo: Mongo) -> None:
    """Drop and insert, as `mongorestore --drop` does."""
    await mongo.db.things.drop()
    await mongo.db.things.insert_one({"_id": 0})


ENDINGS = [drop, rename, replace, drop_database, restore]
End = Callable[[Mongo], Awaitable[None]]


@pytest.mark.parametrize("end", ENDINGS)
async def test_a_stream_ends_with_its_collection(mongo: Mongo, end: End) -> None:
    """The changes before come first, and no later call answers without an error."""
    async with mongo.watch(INSERTS, "things") as stream:
        await mongo.db.things.insert_one({"_id": 1})
        await end(mongo)
        change = await asyncio.wait_for(anext(stream), 10)
        assert change["documentKey"]["_id"] == 1
        assert stream.resume_token == change["_id"]
        for _ in range(2):
            with pytest.raises(StreamEndedError) as ended:
                await asyncio.wait_for(anext(stream), 10)
    assert cannot_resume(ended.value)


@pytest.mark.parametrize("end", ENDINGS)
async def test_a_token_from_before_the_end_cannot_resume(mongo: Mongo, end: End) -> None:
    """The check says so although a stream from there would open without an error."""
    async with mongo.watch(INSERTS, "things") as stream:
        start = stream.resume_token["_data"]
        await mongo.db.things.insert_one({"_id": 1})
        token = (await asyncio.wait_for(anext(stream), 10))["_id"]["_data"]
        await end(mongo)
    async with mongo.watch(INSERTS, "things") as stream:
        await mongo.db.things.insert_one({"_id": 2})
        now = (await asyncio.wait_for(anext(stream), 10))["_id"]["_data"]
    for lost in (start, token):
        with pytest.raises(RegistryError) as refused:
            await check_unbroken(mongo, "things", lost, now)
        assert cannot_resume(refused.value)
    await check_unbroken(mongo, "things", now, now)


async def test_a_token_of_the_future_cannot_resume(mongo: Mongo) -> None:
    """A stream after it would stay silent: it is of a database that was set back."""
    async with mongo.watch(INSERTS, "things") as stream:
        now = stream.resume_token["_data"]
    later = f"82{int(now[2:10], 16) + 100:08X}{now[10:]}"
    with pytest.raises(StreamEndedError):
        await check_unbroken(mongo, "things", later, now)


async def test_a_check_that_takes_too_long_gives_up(mongo: Mongo) -> None:
    """A client is told to load the list rather than left waiting for the whole oplog."""
    async with mongo.watch(INSERTS, "things") as stream:
        start = stream.resume_token["_data"]
    clock = iter([0.0, 21.0])
    unreachable = f"82FFFFFFFF{start[10:]}"
    with pytest.raises(StreamEndedError):
        await check_unbroken(mongo, "things", start, unreachable, lambda: next(clock))


async def test_a_watcher_of_the_database_goes_on_after_its_end(mongo: Mongo) -> None:
    """It opens another stream. A renamed collection wakes it too."""
    wakes = 0
    counters: Counter[str] = Counter()

    def wake() -> None:
        nonlocal wakes
        wakes += 1

    watching = asyncio.create_task(
        wake_on(lambda: mongo.watch([{"$match": concerns_collections("things")}]), wake, counters)
    )

    async def woken(times: int) -> None:
        async def are_enough() -> bool:
            return wakes >= times

        await until(are_enough)

    try:
        await woken(1)
        await drop_database(mongo)
        await woken(3)  # The drop, and the start of the next stream.
        assert counters["stream_breaks"] == 1
        before = wakes
        await replace(mongo)
        await woken(before + 1)
    finally:
        watching.cancel()
