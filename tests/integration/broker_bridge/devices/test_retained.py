"""Test that the broker forgets the retained messages of a device that is gone."""

import asyncio
import secrets
from datetime import datetime, timezone

import aiomqtt

from broker_bridge.bootstrap import Bridge
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus, SyncApplied
from broker_bridge.registry import Registry
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import Peer, connected, running
from tests.waiting import until

NOW = datetime(2026, 1, 15, 10, 0, 0, tzinfo=timezone.utc)


async def retained(mosquitto: Mosquitto, device_id: str) -> set[str]:
    """Return the last part of each topic of the device with a retained message."""
    found = set()
    async with aiomqtt.Client(
        mosquitto.host, mosquitto.port, username="admin", password=mosquitto.users["admin"],
        identifier=f"watch-{secrets.token_hex(4)}", protocol=aiomqtt.ProtocolVersion.V5,
    ) as client:  # fmt: skip
        await client.subscribe(f"wfm/v1/device/{device_id}/#", qos=1)
        # The broker sends retained messages before it passes on this one.
        await client.publish(f"wfm/v1/device/{device_id}/end", b"end", qos=1)
        async for message in client.messages:
            if message.topic.matches("+/+/+/+/end"):
                return found
            found.add(str(message.topic).rpartition("/")[2])
    return found


async def announce(peer: Peer) -> None:
    await peer.send("status", DeviceStatus(state="online", session="1", at=NOW), retain=True)
    info = DeviceInfo(site_id=peer.device.site, software="1", spaces={})
    await peer.send("info", info, retain=True)
    await peer.send(
        "enrollment/applied", SyncApplied(epoch="0", version=1, spaces={}, duration_ms=1.0), retain=True
    )


async def test_a_decommissioned_device_leaves_nothing_in_the_broker(
    bridge: Bridge, registry: Registry, mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice
) -> None:
    """Its retained messages are gone, and the bridge takes no empty one for a message."""
    await announce(peer)
    assert await retained(mosquitto, fresh_device.id) == {"status", "info", "applied"}
    await registry.placements.decommission(fresh_device.id, by="tester", now=NOW)

    async def cleared() -> bool:
        return not await registry.placements.to_clear()

    await until(cleared)
    assert await retained(mosquitto, fresh_device.id) == set()
    assert not [name for name in bridge.link.counters if name.startswith("refused_")]


async def test_a_decommissioned_device_that_appears_again_is_cleared_again(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """The next bridge clears what it left while none was connected."""
    await registry.placements.decommission(fresh_device.id, by="tester", now=NOW)
    await registry.placements.mark_cleared(fresh_device.id, "all")
    async with connected(mosquitto, fresh_device) as peer:
        await announce(peer)
        async with running(registry, program):

            async def forgotten() -> bool:
                await asyncio.sleep(0.05)
                return await retained(mosquitto, fresh_device.id) == set()

            await until(forgotten)
    found = await registry.devices.get(fresh_device.id)
    assert found is not None
    assert (found.site_id, found.status, found.applied) == (None, None, None)
