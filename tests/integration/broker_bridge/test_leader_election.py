"""Check which worker leads while servers do not answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import cast

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
    """A lease that is taken once; after that the server does not answer."""

    def __init__(self) -> None:
        self.takes = 0

    async def take(self) -> bool:
        self.takes += 1
        if self.takes > 1:
            await asyncio.Event().wait()
        return True

    async def release(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def competing(leadership: LeaderElection) -> AsyncIterator[None]:
    task = asyncio.create_task(leadership.compete())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_leader_steps_down_when_the_lease_server_is_silent() -> None:
    """A lease expires by the clock, also during a renewal without an answer."""

    async def lead() -> None:
        await asyncio.Event().wait()

    leadership = LeaderElection(cast("Lease", SilentLease()), 0.3, lead)
    async with competing(leadership):

        async def leading() -> bool:
            return leadership.is_leading

        async def ended() -> bool:
            return not leadership.is_leading

        await until(leading)
        await until(ended)


async def test_a_broker_that_does_not_answer_does_not_end_the_leader(
    registry: Registry, program: BridgeProgram, own_mosquitto: Mosquitto
) -> None:
    """A subscription has no answer; the bridge follows once the broker is back."""
    mqtt = MqttSettings(
        port=own_mosquitto.port,
        username="bridge",
        password=SecretStr(own_mosquitto.users["bridge"]),
        keepalive_seconds=5,
    )
    settings = program.model_copy(update={"mqtt": mqtt})
    camera = FreshDevice("cam-001", own_mosquitto.users["cam-001"], SITE)
    assert await Lease(registry.mongo, "publisher", "elsewhere", 60).take()
    async with running(registry, settings) as worker:
        link = worker.link
        own_mosquitto.program.freeze()
        link.follow(FOLLOWED)

        async def disconnected() -> bool:
            return link.counters["disconnects"] > 0

        await until(disconnected)
        own_mosquitto.program.thaw()
        async with connected(own_mosquitto, camera) as peer:
            status = b'{"state":"online","session":"1","at":"2026-01-15T10:00:00.000Z"}'
            await peer.send("status", status, retain=True)

            async def recorded() -> bool:
                found = await registry.devices.get(camera.id)
                return bool(found and found.status and found.status.state == "online")

            await until(recorded)


async def test_a_worker_that_stopped_is_no_longer_shown(registry: Registry, program: BridgeProgram) -> None:
    """The registry forgets stopped and killed workers; each start is a new worker."""
    now = datetime.now(timezone.utc)
    workers = Workers(registry.mongo)
    await workers.report("killed-0", {}, now - timedelta(days=2))
    async with running(registry, program) as worker:

        async def reported() -> bool:
            return await registry.mongo.db.meta.find_one({"_id": f"bridge:{worker.bridge_id}"}) is not None

        await until(reported)
    assert not await Overview(registry.mongo).bridge_seen_since(now - timedelta(days=9))


async def test_the_publisher_waits_for_a_database_that_is_gone(
    bridge: Bridge, registry: Registry, program: BridgeProgram
) -> None:
    """A restore drops collections under a running bridge, which logs it and recovers."""
    versions = await registry.mongo.db.meta.find_one({"_id": "versions"})
    await registry.mongo.db.meta.delete_one({"_id": "versions"})
    bridge.publisher.wake()

    async def restarted() -> bool:
        return bridge.publisher.counters["restarts"] > 0

    await until(restarted)
    await registry.mongo.db.meta.insert_one(versions)
    heads = bridge.publisher.counters["heads"]
    await bridge._publish_heads_again()

    async def published() -> bool:
        return bridge.publisher.counters["heads"] > heads

    await until(published)


async def test_a_worker_without_a_broker_releases_the_tracker_lease(
    registry: Registry, program: BridgeProgram
) -> None:
    """A disconnected worker does not lead; after a reconnect it may lead again."""
    lease_seconds, online = 0.3, [True, True]

    def start(number: int) -> LeaderElection:
        lease = Lease(registry.mongo, "tracker", f"bridge-{number}", lease_seconds)
        return LeaderElection(lease, lease_seconds, asyncio.Event().wait, is_able=lambda: online[number])  # type: ignore[arg-type]

    first, second = start(0), start(1)

    def leading(worker: LeaderElection) -> Callable[[], Awaitable[bool]]:
        async def is_leading() -> bool:
            return worker.is_leading

        return is_leading

    async with competing(first):
        await until(leading(first))
        async with competing(second):
            online[0] = False
            await until(leading(second))
            assert not first.holds_lease()
            online[:] = [True, False]
            await until(leading(first))
            assert not second.holds_lease()
