"""The API and its live stream outlive the loss of the collection of events."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import ClassVar

import httpx
import pytest

from broker_bridge.registry import Registry
from broker_bridge.registry.mongo.change_stream import ChangeStream
from broker_bridge.registry.mongo.errors import RegistryError
from broker_bridge.registry.mongo.resume import changes_until
from dashboard_api.http.problems import Problem
from dashboard_api.services.event_hub import EventHub
from tests.integration.dashboard_api.conftest import KEYS, is_problem
from tests.integration.dashboard_api.events.test_live import numbers, record, take, url, watching

__all__ = ["url"]

VIEWER = {"Authorization": f"Bearer {KEYS['viewer']}"}
SECONDS = 60.0


async def drop(registry: Registry) -> None:
    await registry.mongo.db.events.drop()


async def rename(registry: Registry) -> None:
    await registry.mongo.db.events.rename("events_of_last_year")


async def replace(registry: Registry) -> None:
    """Put another collection in its place, with a document of another program."""
    await registry.mongo.db.restored.insert_one({"_id": "a note"})
    await registry.mongo.db.restored.rename("events", dropTarget=True)


async def restore(registry: Registry) -> None:
    """Drop and insert, as `mongorestore --drop` does."""
    backup = [found async for found in registry.mongo.db.events.find()]
    await registry.mongo.db.events.drop()
    await registry.mongo.db.events.insert_many([*backup, {"_id": "a note"}])


Loss = Callable[[Registry], Awaitable[None]]
LOSSES = [drop, rename, replace, restore]


@pytest.mark.parametrize("lose", LOSSES)
async def test_the_api_goes_on_while_a_dashboard_is_open(url: str, registry: Registry, lose: Loss) -> None:
    """The stream ends, earlier ids are refused, another stream gets new events."""
    await record(registry, 1)
    async with httpx.AsyncClient(base_url=url, headers=VIEWER, timeout=SECONDS) as api:
        async with watching(url) as dashboard:
            ids = [(await dashboard.block()).id]
            await record(registry, 2, 3)
            ids += [item.id for item in await dashboard.events(2)]
            await lose(registry)
            assert (await api.get("/healthz")).status_code == 200
            with pytest.raises(StopAsyncIteration):
                await dashboard.block()
            assert (await api.get("/api/v1/devices")).status_code == 200
        for last in ids:
            refused = await api.get("/api/v1/events/stream", headers={"Last-Event-ID": str(last)})
            is_problem(refused, 410, "resume-lost")
        async with watching(url) as dashboard:
            first = (await dashboard.block()).id
            await record(registry, 11, 12)
            assert numbers(await dashboard.events(2)) == [11, 12]
        async with watching(url, first) as dashboard:
            assert numbers(await dashboard.events(2)) == [11, 12]


async def test_new_clients_wait_until_the_stream_is_open_again(registry: Registry) -> None:
    """They get no error while the hub opens another stream."""
    hub = EventHub(registry.events)
    async with hub.subscribe() as first:
        await record(registry, 1)
        await drop(registry)
        assert numbers(await take(first)) == [1]
        async with hub.subscribe() as second:
            await record(registry, 2)
            assert numbers(await take(second, 1)) == [2]
    await hub.stop()


async def test_a_hub_outlives_the_loss_of_the_database(registry: Registry) -> None:
    hub = EventHub(registry.events)
    async with hub.subscribe() as subscription:
        await record(registry, 1)
        start = subscription.position
        await registry.mongo.db.client.drop_database(registry.mongo.db.name)
        assert numbers(await take(subscription)) == [1]
    async with hub.subscribe() as subscription:
        await registry.mongo.db.events.insert_one({"_id": "cam-001/a note"})
        with pytest.raises(Problem) as refused:
            async with hub.subscribe(start):
                pytest.fail("the token is of the dropped collection")
        assert refused.value.code == "resume-lost"
    await hub.stop()


async def foreign_token(registry: Registry) -> str:
    """Return the token of a change in another collection, between two events."""
    async with registry.mongo.watch([], "notes") as notes:
        await record(registry, 1)
        await registry.mongo.db.notes.insert_one({"_id": 1})
        await record(registry, 2)
        return str((await asyncio.wait_for(anext(notes), SECONDS))["_id"]["_data"])


async def future_token(registry: Registry) -> str:
    async with registry.events.watch() as stream:
        token = stream.resume_token["_data"]
    return f"82{int(token[2:10], 16) + 86_400:08X}{token[10:]}"


async def cut_token(registry: Registry) -> str:
    async with registry.events.watch() as stream:
        await record(registry, 1)
        return str((await asyncio.wait_for(anext(stream), SECONDS))["_id"]["_data"][:40])


async def damaged_token(registry: Registry) -> str:
    """Return a token whose id of the collection has another type."""
    async with registry.events.watch() as stream:
        await record(registry, 1)
        token = str((await asyncio.wait_for(anext(stream), SECONDS))["_id"]["_data"])
    assert token.count("5A1004") == 1
    return token.replace("5A1004", "5A10F4")


async def past_token(_: Registry) -> str:
    """Return a token from before the oplog, which begins with the test's mongod."""
    return "8200000001000000012B0229296E04"


@pytest.mark.parametrize("token_of", [foreign_token, future_token, cut_token, damaged_token, past_token])
async def test_a_token_of_another_history_is_refused_before_the_stream(
    url: str, registry: Registry, token_of: Callable[[Registry], Awaitable[str]]
) -> None:
    headers = VIEWER | {"Last-Event-ID": await token_of(registry)}
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        is_problem(await client.get(f"{url}/api/v1/events/stream", headers=headers), 410, "resume-lost")


async def test_a_token_resumes_in_either_case_and_an_empty_one_is_none(url: str, registry: Registry) -> None:
    """Tokens compare as text, and the standard says that an empty id is no id."""
    async with watching(url) as dashboard:
        start = str((await dashboard.block()).id)
        await record(registry, 1)
        assert numbers(await dashboard.events(1)) == [1]
    async with watching(url, start.lower()) as dashboard:
        assert numbers(await dashboard.events(1)) == [1]
        await record(registry, 2)
        assert numbers(await dashboard.events(1)) == [2]
    headers = VIEWER | {"Last-Event-ID": ""}
    async with (
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("GET", f"{url}/api/v1/events/stream", headers=headers) as answer,
    ):
        assert answer.status_code == 200


async def test_a_break_while_catching_up_ends_the_stream(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The client resumes; the log has a line and no traceback."""
    hub = EventHub(registry.events)
    async with hub.subscribe() as live:
        start = live.position
        await record(registry, 0)
        assert numbers(await take(live, 1)) == [0]
        async with hub.subscribe(start) as resumed:
            assert resumed.missed is not None
            resumed.missed._changes = changes_until(ChangeStream(BrokenDriverStream()), "FF")
            with caplog.at_level(logging.WARNING):
                received = await take(resumed)
    assert numbers(received) == [0]
    assert "event stream cannot catch up" in caplog.text
    await hub.stop()


class BrokenDriverStream:
    """A driver's stream whose server went away."""

    resume_token: ClassVar = {"_data": "82"}

    async def try_next(self) -> None:
        raise RegistryError("connection lost")
