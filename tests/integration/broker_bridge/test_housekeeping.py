"""Check that the leader purges tombstones and finishes erasures."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from broker_bridge.bootstrap import Bridge
from broker_bridge.common.clock import utc_now
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.housekeeping import Housekeeping
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.removal import SETTLE_TIME
from broker_bridge.registry.events.model import IncomingEvent
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.privacy.tombstones import Tombstones
from broker_bridge.settings import BridgeProgram
from tests.conftest import FreshDevice
from tests.detected_samples import seen, write_person
from tests.integration.broker_bridge.support import Peer, event, face, running
from tests.waiting import until

MONTH = timedelta(days=30)
WEEK = timedelta(days=7)


def clock(at: datetime) -> Callable[[], datetime]:
    return lambda: at


async def test_a_purge_raises_the_horizon_and_forces_snapshots_below_it(
    peer: Peer, bridge: Bridge, registry: Registry
) -> None:
    """The head has the new horizon; a device at or above it continues with changes."""
    site = peer.device.site
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=(site,)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    deleted = await registry.identities.delete("EMP-1")
    long_ago = to_milliseconds(utc_now()) - MONTH - timedelta(seconds=1)
    await registry.mongo.db.identities.update_one({"_id": "EMP-1"}, {"$set": {"deleted_at": long_ago}})

    await bridge.housekeeping.tidy()

    head = await peer.receive("sync_head")
    while head.horizon == 0:
        head = await peer.receive("sync_head")
    assert (head.version, head.horizon) == (deleted.version, deleted.version)
    reset = await peer.request_page(deleted.version - 1, head.epoch)
    assert (reset.reset, [upsert.user_id for upsert in reset.upserts]) == (True, ["EMP-2"])
    above = await peer.request_page(deleted.version, head.epoch)
    assert (above.reset, above.done, above.upserts, above.removals) == (False, True, [], [])

    async def counted() -> bool:
        return bool(bridge.health()["housekeeping"]["purged"] == 1)

    await until(counted)


async def test_a_purge_at_another_site_forces_no_snapshot(
    peer: Peer, bridge: Bridge, registry: Registry
) -> None:
    """A site's horizon covers only the identities that were synced to it."""
    await registry.sites.ensure("elsewhere")
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=(peer.device.site,)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), sites=("elsewhere",)))
    await registry.identities.delete("EMP-2")
    await registry.tombstones.purge(to_milliseconds(utc_now()) + MONTH, timedelta(0))
    epoch = (await registry.versions.read()).epoch
    page = await peer.request_page(1, epoch)
    assert (page.reset, page.done) == (False, True)


async def test_a_new_leader_continues_an_interrupted_erasure(
    registry: Registry, program: BridgeProgram, fresh_device: FreshDevice
) -> None:
    """The API process died after the transaction: the leader does the sweeps."""
    await registry.identities.enroll(EnrollIdentity("EMP-12345", (face(1),)))
    await registry.events.record([_incoming(fresh_device.id)])
    erasure = await registry.erasures.erase("EMP-12345", by="privacy-desk", now=to_milliseconds(utc_now()))
    async with running(registry, program):

        async def swept() -> bool:
            (erasure,) = await registry.erasures.erasures_of(["EMP-12345"])
            return "audit" in erasure.steps

        await until(swept)
    assert await registry.mongo.db.events.distinct("user_id") == [erasure.pseudonym]


async def test_an_erasure_is_complete_once_confirmed_and_settled(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """Devices must confirm and the settle time must pass before the erasure counts."""
    await registry.mongo.db.devices.delete_many({})
    await registry.identities.enroll(EnrollIdentity("EMP-12345", (face(1),)))
    at = to_milliseconds(utc_now())
    await registry.erasures.erase("EMP-12345", by="privacy-desk", now=at)
    early, late = (
        Housekeeping(registry, MONTH, unseen=WEEK, now=clock(now)) for now in (at, at + SETTLE_TIME)
    )
    await early.tidy()
    assert early.counters["erased"] == 0
    await late.tidy()
    assert late.counters["erased"] == 1


async def test_a_detected_person_unseen_for_a_week_is_deleted(bridge: Bridge, registry: Registry) -> None:
    """`tracking.retention_days` removes faces and trails too; each removal is counted."""
    now = to_milliseconds(utc_now())
    unseen = await write_person(registry, [seen("cam-001", now - WEEK - timedelta(minutes=1))])
    kept = await write_person(registry, [seen("cam-001", now - WEEK + timedelta(minutes=1))])
    await bridge.housekeeping.tidy()
    assert await registry.mongo.db.persons.distinct("_id") == [kept]
    assert await registry.mongo.db.person_faces.distinct("person") == [kept]
    assert await registry.mongo.db.trails.distinct("person") == [kept]
    assert unseen != kept

    async def counted() -> bool:
        # The bridge keeps house by itself too, and may be about to count its own removal.
        return bool(bridge.health()["housekeeping"]["forgotten"] == 1)

    await until(counted)


async def test_chores_at_the_same_time_lose_no_count(registry: Registry) -> None:
    """A chore that ends while another runs is counted too."""
    second_began, first_counted = asyncio.Event(), asyncio.Event()
    calls = iter(("first", "second"))

    class Slow:
        async def purge(self, now: datetime, retention: timedelta) -> int:
            if next(calls) == "first":
                await second_began.wait()
                return 1
            second_began.set()
            await first_counted.wait()
            return 0

    slow = replace(registry, tombstones=cast("Tombstones", Slow()))
    keeping = Housekeeping(slow, MONTH, unseen=WEEK, seconds=60.0)
    first, second = (asyncio.create_task(keeping.tidy()) for _ in range(2))
    await first
    first_counted.set()
    await second
    assert keeping.counters["purged"] == 1


async def test_a_failed_chore_is_counted_and_repeated(registry: Registry) -> None:
    """A failing chore stops neither the other chores nor the bridge."""

    class Failing:
        calls = 0

        async def purge(self, now: datetime, retention: timedelta) -> int:
            self.calls += 1
            if self.calls < 3:
                raise RegistryError("away")
            return 7

    await registry.mongo.db.devices.delete_many({})
    await registry.identities.enroll(EnrollIdentity("EMP-12345"))
    at = to_milliseconds(utc_now())
    await registry.erasures.erase("EMP-12345", by="privacy-desk", now=at)
    broken = replace(registry, tombstones=cast("Tombstones", Failing()))
    keeping = Housekeeping(broken, MONTH, unseen=WEEK, seconds=0.001, now=clock(at + SETTLE_TIME))
    task = asyncio.create_task(keeping.tidy_regularly())

    async def purged() -> bool:
        return keeping.counters["purged"] >= 7

    await until(purged)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (keeping.counters["purged_failures"], keeping.counters["erased"]) == (2, 1)


async def test_an_event_of_an_erased_identity_is_stored_under_its_pseudonym(
    peer: Peer, registry: Registry
) -> None:
    """A late event of an offline camera gets its receipt, and no user id is stored."""
    await registry.identities.enroll(EnrollIdentity("EMP-12345", (face(1),)))
    metadata = {"distance": 0.28, "name": "Sample Person"}
    sent = event(1, peer.device.id, image="/9j/4AAQSkZJRg==", metadata=metadata)
    erasure = await registry.erasures.erase("EMP-12345", by="privacy-desk", now=to_milliseconds(utc_now()))
    await peer.send("event/facial_id", json.dumps(sent).encode())
    assert (await peer.receive("receipt")).stored == [sent["event_id"]]
    stored = await registry.events.get(peer.device.id, sent["event_id"])
    assert stored is not None
    assert (stored.user_id, stored.metadata) == (erasure.pseudonym, {"distance": 0.28})
    assert await registry.events.image(peer.device.id, sent["event_id"]) is None


def _incoming(device_id: str) -> IncomingEvent:
    return IncomingEvent(Event.model_validate(event(1, device_id)), "lobby", to_milliseconds(utc_now()))
