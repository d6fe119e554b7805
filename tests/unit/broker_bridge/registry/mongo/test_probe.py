"""The judgement whether a MongoDB client still works."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from pymongo.errors import ServerSelectionTimeoutError

from broker_bridge.registry.mongo.client import Mongo
from broker_bridge.registry.mongo.probe import ConnectionProbe

Ping = Callable[[], Awaitable[None]]


async def answer() -> None:
    return


async def fail() -> None:
    raise ServerSelectionTimeoutError("no server")


async def hang() -> None:
    await asyncio.Event().wait()


async def be_cancelled() -> None:
    raise asyncio.CancelledError


class ScriptedMongo:
    """A client whose pings behave as scripted; the last one repeats."""

    def __init__(self, pings: list[Ping], fresh: Ping) -> None:
        self._pings = pings
        self._fresh = fresh
        self.closed = 0

    async def ping(self) -> None:
        await (self._pings.pop(0) if len(self._pings) > 1 else self._pings[0])()

    def again(self) -> "ScriptedMongo":
        return ScriptedMongo([self._fresh], self._fresh)

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("pings", "fresh", "works"),
    [
        ([answer], answer, [True] * 4),
        ([fail], fail, [True] * 4),
        ([fail], answer, [True, True, False, False]),
        ([hang], fail, [False] * 4),
        ([hang, answer], answer, [False, True, True, True]),
        ([fail, fail, answer, fail], answer, [True] * 4),
        ([be_cancelled], answer, [True] * 4),
    ],
    ids=["well", "server away", "only this client fails", "hangs", "recovers", "elections", "cancelled"],
)
async def test_a_client_is_judged_and_not_the_server(
    pings: list[Ping], fresh: Ping, works: list[bool]
) -> None:
    mongo = ScriptedMongo(list(pings), fresh)
    probe = ConnectionProbe(cast("Mongo", mongo), pause=0, tick=0.001)
    seen = []
    for _ in works:
        await probe.probe()
        seen.append(probe.works)
    assert seen == works
