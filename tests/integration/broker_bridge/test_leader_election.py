"""Who leads while servers say nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from pydantic import SecretStr

from broker_bridge.bootstrap import Bridge
from broker_bridge.common.settings import MqttSettings
from broker_bridge.devices.presence import FOLLOWED
from broker_bridge.leader_election import LeaderElection
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.template_notes import Overview
from broker_bridge.registry.mongo.leases import Lease
from broker_bridge.registry.workers import Workers
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import SITE, FreshDevice
from tests.integration.broker_bridge.support import connected, running
from tests.waiting import until


class SilentLease:
    """Taken once; from then on the server does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def take(self) -> bool:
        self.asked += 1
        if self.asked > 1:
            await asyncio.Event().wait()
        return True

    async def release(self) -> None:
        """Nothing to give back."""


@asynccontextmanager
async def leads(leadership: LeaderElection) -> AsyncIterator[None]:
    task = asyncio.create_task(leadership.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_leader_steps_down_when_the_lease_server_says_nothing() -> None:
    """Its lease runs out by the clock, also while the question about it hangs."""

    async def lead() -> None:
        await asyncio.Event().wait()

    leadership = LeaderElection(cast("Lease", SilentLease()), 0.3, lead)
    async with leads(leadership):

        async def leading() -> bool:
            return leadership.leading

        async def ended() -> bool:
            return not leadership.leading

        await until(leading)
        await until(ended)


async def test_a_broker_that_does_not_answer_does_not_end_the_leader(
    registry: Registry, program: BridgeProgram, own_mosquitto: Mosquitto
) -> None:
    """The subscription times out; the bridge goes on, and follows devices once the broker is back."""
    mqtt = MqttSettings(
        port=own_mosquitto.port, username="bridge", password=SecretStr(own_mosquitto.users["bridge"])
    )
    settings = program.model_copy(update={"mqtt": mqtt})
    camera = FreshDevice("cam-001", own_mosquitto.users["cam-001"], SITE)
    assert await Lease(registry.mongo, "publisher", "elsewhere", 60).take()
    async with running(registry, settings) as worker:
        link = worker.link
        # What aiomqtt does by itself after ten seconds of silence.
        client: Any = link._client
        client.timeout = 0.2
        own_mosquitto.program.freeze()
        link.follow(FOLLOWED)

        async def given_up() -> bool:
            return link.counters["disconnects"] > 0

        await until(given_up)
        own_mosquitto.program.thaw()
        async with connected(own_mosquitto, camera) as peer:
            status = b'{"state":"online","session":"1","at":"2026-01-15T10:00:00.000Z"}'
            await peer.say("status", status, retain=True)

            async def noted() -> bool:
                found = await registry.devices.get(camera.id)
                return bool(found and found.status and found.status.state == "online")

            await until(noted)


async def test_a_worker_that_stopped_is_no_longer_shown(registry: Registry, program: BridgeProgram) -> None:
    """Each start is another worker: neither the stopped nor the killed stay in the registry for ever."""
    now = datetime.now(timezone.utc)
    workers = Workers(registry.mongo)
    await workers.report("killed-0", {}, now - timedelta(days=2))
    async with running(registry, program) as worker:

        async def reported() -> bool:
            return await registry.mongo.db.meta.find_one({"_id": f"bridge:{worker.bridge_id}"}) is not None

        await until(reported)
    assert not await Overview(registry.mongo).bridge_seen_since(now - timedelta(days=9))


async def test_a_database_that_is_gone_is_waited_for(
    bridge: Bridge, registry: Registry, program: BridgeProgram
) -> None:
    """A restore drops collections under a running bridge, which says so and goes on afterwards."""
    kept = await registry.mongo.db.meta.find_one({"_id": "versions"})
    await registry.mongo.db.meta.delete_one({"_id": "versions"})
    bridge.publisher.wake()

    async def complained() -> bool:
        return bridge.publisher.counters["restarts"] > 0

    await until(complained)
    await registry.mongo.db.meta.insert_one(kept)
    heads = bridge.publisher.counters["heads"]
    await bridge._connected()

    async def told() -> bool:
        return bridge.publisher.counters["heads"] > heads

    await until(told)


async def test_a_worker_without_a_broker_leaves_the_tracking_to_others(
    registry: Registry, program: BridgeProgram
) -> None:
    """It could hear no camera. When it can again, it may track again."""
    lease_seconds, can_hear = 0.3, [True, True]

    def worker(number: int) -> LeaderElection:
        lease = Lease(registry.mongo, "tracker", f"bridge-{number}", lease_seconds)
        return LeaderElection(lease, lease_seconds, asyncio.Event().wait, able=lambda: can_hear[number])  # type: ignore[arg-type]

    first, second = worker(0), worker(1)

    def leading(one: LeaderElection) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            return one.leading

        return ask

    async with leads(first):
        await until(leading(first))
        async with leads(second):
            can_hear[0] = False
            await until(leading(second))
            assert not first.holds()
            can_hear[:] = [True, False]
            await until(leading(first))
            assert not second.holds()
