"""Calls of the MongoDB driver outlive the cancellation of their callers."""

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo.errors import ServerSelectionTimeoutError

from broker_bridge.registry.mongo import client as mongo_client
from broker_bridge.registry.mongo.client import Mongo, MongoSettings
from broker_bridge.registry.mongo.shield import DriverCalls
from deploy.local.stack import free_port
from tests.source_tree import ROOT


@pytest.fixture
async def away(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mongo]:
    """A client of a replica set that is not there."""
    monkeypatch.setitem(mongo_client._DEADLINES, "serverSelectionTimeoutMS", 1000)
    mongo = Mongo(MongoSettings(uri=SecretStr(f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0")))
    yield mongo
    await mongo.close()


async def find_one(mongo: Mongo) -> None:
    await mongo.db.devices.find_one({})


async def find_many(mongo: Mongo) -> None:
    async for _ in mongo.db.devices.find({}).sort("_id", 1).limit(5):
        pass


async def write(mongo: Mongo) -> None:
    await mongo.db.devices.update_one({"_id": 1}, {"$set": {"a": 1}})


async def transact(mongo: Mongo) -> None:
    async def work(session: Any) -> None:
        await mongo.db.devices.find_one({}, session=session)

    await mongo.transact(work)


async def snapshot(mongo: Mongo) -> None:
    async with mongo.snapshot() as session:
        await mongo.db.devices.find_one({}, session=session)


async def watch(mongo: Mongo) -> None:
    async with mongo.watch([], "devices") as stream:
        await stream.try_next()


async def ping(mongo: Mongo) -> None:
    await mongo.ping()


CALLS = (find_one, find_many, write, transact, snapshot, watch, ping)


def cancel_after(turns: int, task: "asyncio.Task[None]") -> None:
    """Cancel `task` so many turns of the event loop later."""
    if turns:
        asyncio.get_running_loop().call_soon(cancel_after, turns - 1, task)
    else:
        task.cancel()


def cancel_always(task: "asyncio.Task[None]") -> None:
    """Cancel in every turn, as anyio does when a client leaves a streamed answer."""
    task.cancel()
    if not task.done():
        asyncio.get_running_loop().call_soon(cancel_always, task)


@pytest.mark.parametrize("cancel", [partial(cancel_after, 2), partial(cancel_after, 3), cancel_always])
async def test_cancelled_callers_leave_the_driver_working(
    away: Mongo, cancel: Callable[["asyncio.Task[None]"], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The next call meets its deadline after each kind of call was cancelled.

    The cancellations come close to the turn of the loop in which the driver's own waits are over.
    """
    tasks = [asyncio.ensure_future(call(away)) for call in CALLS]
    await asyncio.sleep(0.1)
    for task in tasks:
        asyncio.get_running_loop().call_later(0.01, cancel, task)
    time.sleep(0.55)  # noqa: ASYNC251 (a pause of the whole program)
    ended, running = await asyncio.wait(tasks, timeout=1)
    assert not running
    assert all(task.cancelled() for task in ended)
    with pytest.raises(ServerSelectionTimeoutError):
        await asyncio.wait_for(away.ping(), 5)
    await away.close()
    gc.collect()
    assert not caplog.records


async def test_a_late_error_is_dropped_once(caplog: pytest.LogCaptureFixture) -> None:
    calls = DriverCalls()
    proceed = asyncio.Event()

    async def fail() -> None:
        await proceed.wait()
        raise ServerSelectionTimeoutError("no server")

    caller = asyncio.ensure_future(calls.finish(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(calls) == 1
    proceed.set()
    await calls.drain(5)
    await asyncio.sleep(0)
    gc.collect()
    assert not len(calls)
    assert not caplog.records


async def test_a_later_call_waits_for_the_calls_before_it() -> None:
    calls = DriverCalls()
    order: list[str] = []
    proceed = asyncio.Event()

    async def note(name: str, wait: Awaitable[object] | None = None) -> None:
        if wait is not None:
            await wait
        order.append(name)

    first = asyncio.ensure_future(calls.finish(note("read", proceed.wait())))
    await asyncio.sleep(0)
    calls.finish_later(lambda: note("close"))
    await asyncio.sleep(0)
    proceed.set()
    await first
    await calls.drain(5)
    assert order == ["read", "close"]


async def test_a_result_and_an_error_reach_their_caller() -> None:
    calls = DriverCalls()

    async def answer() -> int:
        return 7

    async def fail() -> None:
        raise ServerSelectionTimeoutError("no server")

    assert await calls.finish(answer()) == 7
    with pytest.raises(ServerSelectionTimeoutError):
        await calls.finish(fail())


def test_every_client_of_the_driver_is_shielded() -> None:
    """Only the module that shields its calls makes clients, and it hands none out."""
    made_in = [
        path
        for path in (ROOT / "broker_bridge").rglob("*.py")
        if re.search(r"AsyncMongoClient|AsyncIOMotorClient|motor_asyncio", path.read_text())
    ]
    assert [path.name for path in made_in] == ["client.py"]
    public = {name for name in vars(Mongo(MongoSettings())) if not name.startswith("_")}
    assert public == {"driver", "db", "patient_db"}
