"""The key watch ends open requests of keys that work no more, and only those."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timezone
from typing import Any

import pytest
from pymongo.errors import AutoReconnect
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from broker_bridge.registry.api_keys import ApiKey, ApiKeyRecord
from dashboard_api.services.key_watch import KeyWatch, WatchKeys

NOW = datetime(2026, 1, 15, tzinfo=timezone.utc)
SECONDS = 60.0


class Keys:
    """The part of `ApiKeys` that the watch uses."""

    def __init__(self) -> None:
        self.active = {"one", "two"}
        self.used: dict[str, datetime] = {}
        self.looks = 0
        self.failure: Exception | None = None

    async def working(self, key_ids: Iterable[str], at: datetime) -> set[str]:
        self.looks += 1
        if self.failure:
            raise self.failure
        return self.active & set(key_ids)

    async def note_use(self, used_at: dict[str, datetime]) -> None:
        self.used |= used_at


def record(key_id: str) -> ApiKeyRecord:
    return ApiKeyRecord(ApiKey(key_id, key_id, "viewer"), NOW)


class Call:
    """One request whose client sends no body and goes on reading."""

    def __init__(self, watch: KeyWatch, key_id: str, *, upload: bool = False) -> None:
        self.sent: list[Message] = []
        self.answered = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            watch.admit(request, record(key_id))
            if upload:
                await request.body()
                await PlainTextResponse("received")(scope, receive, send)
            else:
                await StreamingResponse(self._endless())(scope, receive, send)

        scope = {"type": "http", "path": "/", "headers": [], "asgi": {"spec_version": "2.3"}}
        self.task = asyncio.create_task(WatchKeys(app, watch)(scope, self._receive, self._send))

    async def _endless(self) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async def _receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self.answered.set()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def watch(keys: Keys) -> KeyWatch:
    made: Any = keys
    return KeyWatch(made, lambda: NOW)


async def test_a_download_of_a_revoked_key_is_broken_off(keys: Keys, watch: KeyWatch) -> None:
    """It never looks complete; the download of another key goes on."""
    cut, other = Call(watch, "one"), Call(watch, "two")
    await asyncio.wait_for(asyncio.gather(cut.answered.wait(), other.answered.wait()), SECONDS)
    keys.active = {"two"}
    await watch.look()
    await asyncio.wait_for(cut.task, SECONDS)
    assert all(message.get("more_body", True) for message in cut.sent)
    await watch.look()
    assert not other.task.done()
    other.task.cancel()


async def test_an_upload_of_a_revoked_key_gets_401(keys: Keys, watch: KeyWatch) -> None:
    """The error that leaves the reading of the body is the one that FastAPI lets out."""
    call = Call(watch, "one", upload=True)
    await asyncio.sleep(0)
    keys.active = set()
    await watch.look()
    with pytest.raises(Exception, match="401") as caught:
        await asyncio.wait_for(call.task, SECONDS)
    assert getattr(caught.value, "status_code", None) == 401
    assert call.sent == []


async def test_nothing_open_costs_no_query(keys: Keys, watch: KeyWatch) -> None:
    """An idle process reads no keys."""
    await watch.look()
    assert (keys.looks, keys.used) == (0, {})


async def test_the_watch_goes_on_after_a_failure_of_mongodb(keys: Keys, watch: KeyWatch) -> None:
    """A look that fails ends no request and forgets no use."""
    call = Call(watch, "one")
    await asyncio.wait_for(call.answered.wait(), SECONDS)
    keys.failure, keys.active = AutoReconnect("no primary"), set()
    watching = asyncio.create_task(watch.run())
    while keys.looks < 2:
        await asyncio.sleep(0.01)
    assert not call.task.done()
    keys.failure = None
    await asyncio.wait_for(call.task, SECONDS)
    watch.stop()
    await asyncio.wait_for(watching, SECONDS)
    assert keys.used == {"one": NOW}
