"""The live stream sends each event to every client and resumes without a gap."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from broker_bridge.registry import MongoSettings, Registry
from dashboard_api.server import Server, listen
from dashboard_api.services.event_hub import EventHub, Subscription
from dashboard_api.settings import ApiProgram
from deploy.local.stack import Mongod, free_port
from tests.integration.dashboard_api.conftest import KEYS, event, is_problem
from tests.waiting import until

SECONDS = 60.0


@dataclass(frozen=True)
class StreamBlock:
    """A block of the stream."""

    id: str | None
    number: int | None


class Stream:
    """Reads blocks of server-sent events as they arrive."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def block(self) -> StreamBlock:
        fields: dict[str, str] = {}
        while line := await asyncio.wait_for(anext(self._lines), SECONDS):
            name, _, value = line.partition(": ")
            fields[name] = value
        number = int(json.loads(fields["data"])["event_id"][-6:], 16) if "data" in fields else None
        return StreamBlock(fields.get("id"), number)

    async def events(self, count: int) -> list[StreamBlock]:
        """Return the next `count` events without keep-alive comments."""
        received: list[StreamBlock] = []
        while len(received) < count:
            block = await self.block()
            if block.number is not None:
                received.append(block)
        return received


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """Yield the URL of the app on a real server."""
    program = ApiProgram()
    port = free_port()
    with listen("127.0.0.1", port) as sock:
        server = Server(app, program)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        await asyncio.wait_for(serving, SECONDS)


@asynccontextmanager
async def watching(url: str, after: str | None = None) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {KEYS['viewer']}"} | ({"Last-Event-ID": after} if after else {})
    async with (
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("GET", f"{url}/api/v1/events/stream", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer)


async def record(registry: Registry, *numbers: int) -> None:
    await registry.events.record([event(n) for n in numbers])


def numbers(received: list[StreamBlock]) -> list[int | None]:
    return [item.number for item in received]


async def test_every_client_gets_each_new_event(url: str, registry: Registry) -> None:
    """Two clients get them in order, without older events."""
    await record(registry, 1)
    async with watching(url) as first, watching(url) as second:
        assert (await first.block()).number is None
        assert (await second.block()).number is None
        await record(registry, 2)
        await record(registry, 3, 4)
        assert numbers(await first.events(3)) == [2, 3, 4]
        assert numbers(await second.events(3)) == [2, 3, 4]


async def test_an_interrupted_stream_resumes_after_its_last_event(url: str, registry: Registry) -> None:
    """Missed events come once and in order, with and without other clients."""
    async with watching(url) as cut:
        await cut.block()
        await record(registry, 1, 2, 3)
        last = (await cut.events(2))[-1].id
    await record(registry, 4)
    async with watching(url, last) as alone:
        assert numbers(await alone.events(2)) == [3, 4]
        await record(registry, 5)
        assert numbers(await alone.events(1)) == [5]
        async with watching(url, last) as beside:
            assert numbers(await beside.events(3)) == [3, 4, 5]
            await record(registry, 6, 7)
            assert numbers(await beside.events(2)) == [6, 7]
        assert numbers(await alone.events(2)) == [6, 7]


async def test_a_stream_interrupted_before_its_first_event_misses_none(url: str, registry: Registry) -> None:
    """The first block already has an id to resume from."""
    async with watching(url) as cut:
        start = (await cut.block()).id
    await record(registry, 1, 2)
    async with watching(url, start) as resumed:
        assert numbers(await resumed.events(2)) == [1, 2]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("not hex", 422, "request-invalid"),
        ("82" * 2000, 422, "request-invalid"),
        ("deadbeef", 410, "resume-lost"),
        ("82", 410, "resume-lost"),
        ("8265A5000000000001", 410, "resume-lost"),
    ],
)
async def test_an_id_that_cannot_be_resumed_is_a_problem(
    url: str, token: str, status: int, code: str
) -> None:
    """The answer comes before the stream begins, so that a client does not wait."""
    headers = {"Authorization": f"Bearer {KEYS['viewer']}", "Last-Event-ID": token}
    async with httpx.AsyncClient() as client:
        is_problem(await client.get(f"{url}/api/v1/events/stream", headers=headers), status, code)


async def take(subscription: Subscription, count: int | None = None) -> list[StreamBlock]:
    """Return the next `count` events, or all until the subscription ends."""
    received: list[StreamBlock] = []

    async def read() -> None:
        async for live in subscription:
            received.append(StreamBlock(live.token, int(json.loads(live.data)["event_id"][-6:], 16)))
            if len(received) == count:
                return

    await asyncio.wait_for(read(), SECONDS)
    return received


async def test_a_slow_subscription_ends_and_can_resume(registry: Registry) -> None:
    """Memory is bounded, and no event is missed before or after the end."""
    hub = EventHub(registry.events, queue_events=3)
    async with hub.subscribe() as slow, hub.subscribe() as quick:
        await record(registry, *range(10))
        reading = asyncio.create_task(take(quick, 10))

        async def has_ended() -> bool:
            return slow not in hub._subscriptions

        await until(has_ended)
        first = await take(slow)
        assert numbers(first) == [0, 1, 2]
        reading.cancel()
        received = first
        while len(received) < 10:
            # The shared stream may still be at these events, and end this subscription too.
            async with hub.subscribe(received[-1].id) as resumed_subscription:
                received += await take(resumed_subscription, 10 - len(received))
        assert numbers(received) == list(range(10))
    await hub.stop()


async def test_a_subscription_that_overflows_while_it_catches_up_has_no_gap(registry: Registry) -> None:
    """The queued events come after all the missed ones."""
    hub = EventHub(registry.events, queue_events=3)
    async with hub.subscribe() as quick:
        await record(registry, *range(3))
        seen = await take(quick, 3)
        await record(registry, *range(3, 6))
        await take(quick, 3)
        async with hub.subscribe(seen[-1].id) as late:
            await record(registry, *range(6, 12))

            async def has_ended() -> bool:
                return late not in hub._subscriptions

            await until(has_ended)
            assert numbers(await take(late)) == [3, 4, 5, 6, 7, 8]
    await hub.stop()


async def test_a_subscription_ends_when_the_hub_stops(registry: Registry) -> None:
    """A subscription that is still catching up ends too."""
    hub = EventHub(registry.events)
    await record(registry, 1)
    async with hub.subscribe() as live, hub.subscribe(live.position) as resumed:
        ends = [asyncio.create_task(take(item)) for item in (live, resumed)]
        await asyncio.sleep(0)
        await hub.stop()
        assert await asyncio.wait_for(asyncio.gather(*ends), SECONDS) == [[], []]


async def test_without_subscriptions_there_is_no_change_stream(registry: Registry) -> None:
    """It opens with the first subscription and closes with the last."""
    hub = EventHub(registry.events)
    for n in (1, 2):
        async with hub.subscribe() as watcher:
            assert hub._following is not None
            await record(registry, n)
            assert numbers(await take(watcher, 1)) == [n]
        assert hub._following is None
    await hub.stop()


async def test_a_client_that_stops_reading_does_not_delay_the_end(app: FastAPI, registry: Registry) -> None:
    """Its connection is cut after the grace period; the server ends in ten seconds."""
    port = free_port()
    with listen("127.0.0.1", port) as sock:
        server = Server(app, ApiProgram())
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        key = KEYS["viewer"]
        request = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(request.encode())
        await asyncio.wait_for(reader.readuntil(b"connected"), SECONDS)
        hub: EventHub = app.state.services.hub
        # The events fill all buffers on the way, so that the server waits for this client.
        padding = {"note": "x" * 60_000}
        for start in range(0, 2000, 100):
            await registry.events.record([event(start + n, metadata=padding) for n in range(100)])
            if not hub._subscriptions:
                break

        async def all_ended() -> bool:
            return not hub._subscriptions

        await until(all_ended)
        server.should_exit = True
        await asyncio.wait_for(serving, 10)
        writer.close()


async def test_a_stream_outlives_a_restart_of_mongodb(own_mongod: Mongod) -> None:
    """A subscription gets the events after the restart."""
    registry = await Registry.open(MongoSettings(uri=SecretStr(own_mongod.uri), database="live"))
    hub = EventHub(registry.events)
    async with hub.subscribe() as watcher:
        await record(registry, 1)
        assert numbers(await take(watcher, 1)) == [1]
        own_mongod.kill()
        own_mongod.restart()
        await record(registry, 2, 3)
        assert numbers(await take(watcher, 2)) == [2, 3]
    await hub.stop()
    await registry.close()
