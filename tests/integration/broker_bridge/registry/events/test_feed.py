"""The feed of events: each event exactly once, in order of receipt."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.events.event_filter import EventFilter
from broker_bridge.registry.events.feed import FeedCursor, FeedLostError
from broker_bridge.registry.mongo.client import Mongo
from deploy.local.stack import Mongod
from tests.integration.broker_bridge.registry.events.test_events import incoming

EVERYTHING = EventFilter()
Work = Callable[[Any], Awaitable[Any]]


@asynccontextmanager
async def worker(mongod: Mongod, database: str, source: random.Random) -> AsyncIterator[Registry]:
    """Open a registry whose commits are late by up to 15 ms."""
    registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=database))
    transact = registry.mongo.transact

    async def transact_late(work: Work) -> Any:
        async def work_slowly(session: Any) -> Any:
            result = await work(session)
            await asyncio.sleep(source.uniform(0, 0.015))
            return result

        return await transact(work_slowly)

    registry.mongo.transact = transact_late  # type: ignore[method-assign, assignment]
    yield registry
    await registry.close()


async def read_all(registry: Registry, after: FeedCursor | None = None, limit: int = 3) -> list[str]:
    keys: list[str] = []
    more = True
    while more:
        page = await registry.event_feed.read(EVERYTHING, after, limit)
        keys += [event.key for event in page.events]
        after, more = page.cursor, page.more
    return keys


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_poller_beside_two_workers_sees_each_event_once(
    registry: Registry, mongod: Mongod, mongo_database: str, seed: int
) -> None:
    """Workers commit late, at the same time, and repeat events of each other."""
    source = random.Random(seed)
    batches = [[incoming(20 * batch + n) for n in range(source.randint(1, 8))] for batch in range(30)]
    late = [batch for batch in batches if source.random() < 0.3]
    work = iter([*batches, *late])

    async def write(writer: Registry) -> None:
        for batch in work:
            await writer.events.record(batch)

    seen: list[str] = []
    async with worker(mongod, mongo_database, source) as one, worker(mongod, mongo_database, source) as two:
        writing = asyncio.gather(write(one), write(two))
        cursor: FeedCursor | None = None
        done = False
        while not done:
            # Before the read: what was committed until then is in it.
            written = writing.done()
            page = await registry.event_feed.read(EVERYTHING, cursor, source.randint(1, 5))
            seen += [event.key for event in page.events]
            cursor, done = page.cursor, written and not page.more
        await writing
    assert len(seen) == len(set(seen))
    assert set(seen) == {item.key for batch in batches for item in batch}
    assert seen == await read_all(registry, limit=100)


async def test_events_of_an_earlier_release_join_the_feed(registry: Registry) -> None:
    """They lack a position, get one in the order of their storage, and are read once."""
    await registry.events.record([incoming(n) for n in (7, 3, 5)])
    await registry.mongo.db.events.update_many({}, {"$unset": {"position": 1}})
    await registry.events.record([incoming(1)])
    page = await registry.event_feed.read(EVERYTHING, None, 10)
    assert [event.key for event in page.events] == [incoming(1).key]
    numbered = [await registry.event_feed.number_events(2) for _ in range(3)]
    assert numbered == [2, 1, 0]
    assert await read_all(registry, page.cursor) == [incoming(n).key for n in (7, 3, 5)]
    assert await read_all(registry) == [incoming(n).key for n in (1, 7, 3, 5)]


async def test_positions_go_on_if_their_counter_is_lost(registry: Registry) -> None:
    """A poller that has read everything gets the next event."""
    await registry.events.record([incoming(n) for n in range(3)])
    cursor = (await registry.event_feed.read(EVERYTHING, None, 10)).cursor
    await registry.mongo.db.meta.delete_one({"_id": "event-positions"})
    assert await read_all(registry, cursor) == []
    await registry.events.record([incoming(9)])
    assert await read_all(registry, cursor) == [incoming(9).key]


async def test_a_failed_batch_leaves_no_gap_that_a_reader_waits_for(registry: Registry) -> None:
    """Positions of a transaction that is rolled back are given again."""
    await registry.mongo.db.command("collMod", "events", validator={"user_id": {"$ne": "EMP-666"}})
    with pytest.raises(Exception, match="batch op errors"):
        await registry.events.record([incoming(1), incoming(2, user_id="EMP-666")])
    await registry.events.record([incoming(3)])
    assert await read_all(registry) == [incoming(3).key]
    await registry.mongo.db.command("collMod", "events", validator={})


async def test_a_page_beside_an_open_transaction_waits_for_nothing(registry: Registry) -> None:
    """A reader sees neither the events nor the positions of a batch before its commit."""
    entered, release = asyncio.Event(), asyncio.Event()
    transact = registry.mongo.transact

    async def transact_held(mongo: Mongo, work: Work) -> Any:
        async def hold(session: Any) -> Any:
            result = await work(session)
            entered.set()
            await release.wait()
            return result

        return await transact(hold)

    registry.mongo.transact = transact_held.__get__(registry.mongo)  # type: ignore[method-assign]
    recording = asyncio.create_task(registry.events.record([incoming(1)]))
    await entered.wait()
    before = await registry.event_feed.read(EVERYTHING, None, 10)
    release.set()
    await recording
    assert (list(before.events), before.cursor.position) == ([], 0)
    assert await read_all(registry, before.cursor) == [incoming(1).key]


async def test_a_cursor_of_another_history_is_lost(registry: Registry) -> None:
    """A cursor ahead of the counter is of a database that was set back."""
    await registry.events.record([incoming(1)])
    cursor = (await registry.event_feed.read(EVERYTHING, None, 10)).cursor
    for lost in (FeedCursor(cursor.epoch, 2), FeedCursor("0" * 16, 1), FeedCursor(cursor.epoch, 10**17)):
        with pytest.raises(FeedLostError):
            await registry.event_feed.read(EVERYTHING, lost, 10)
