"""Check that one hostile sender cannot harm the bridge."""

import asyncio
import json
import logging
from typing import Any

import numpy as np
import pytest

from broker_bridge.bootstrap import Bridge
from broker_bridge.contract import channels
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.errors import PAYLOAD_INVALID, ContractError
from broker_bridge.contract.messages import DeviceInfo, Receipts, Rejection, SpaceInfo, SyncPage, SyncRequest
from broker_bridge.enrollment.sync_responder import SyncResponder
from broker_bridge.events.rejections import RejectionHandler
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.settings import BridgeProgram
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import Peer, event
from tests.waiting import until

HEARTBEAT: dict[str, Any] = {"at": "2026-01-15T10:00:00.000Z", "uptime_s": 1}


async def unused(*_: Any, **__: Any) -> bool:
    """Accept a message without publishing it."""
    return True


@pytest.mark.parametrize("field", ["temperatures", "refusals"])
async def test_a_key_that_bson_cannot_hold_does_not_end_the_bridge(
    peer: Peer, bridge: Bridge, registry: Registry, field: str
) -> None:
    """A heartbeat with NUL in a key is rejected, and the next one is recorded."""

    async def recorded(fps: int) -> bool:
        found = await registry.devices.get(peer.device.id)
        return bool(found and (found.heartbeat or {}).get("fps") == fps)

    async def received() -> bool:
        # Repeated: heartbeats are QoS 0, and the bridge may not follow them yet.
        await peer.send("heartbeat", json.dumps(HEARTBEAT | {"fps": 6}).encode())
        return await recorded(6)

    await until(received)
    await peer.send("heartbeat", json.dumps(HEARTBEAT | {field: {"a\0b": 1}}).encode())
    await peer.send("heartbeat", json.dumps(HEARTBEAT | {"fps": 7}).encode())
    await until(lambda: recorded(7))
    assert bridge.link.counters["refused_payload-invalid"] == 1


async def test_invented_spaces_do_not_make_the_heads_too_large(
    peer: Peer, bridge: Bridge, registry: Registry
) -> None:
    """Past a bound no device adds a space to the heads; earlier spaces stay in use."""
    for n in range(0, 80, 16):
        made_up = {f"face:fake-{k}": SpaceInfo(dimension=8, model_sha256="f" * 64) for k in range(n, n + 16)}
        info = DeviceInfo(site_id=peer.device.site, software="0", spaces=made_up)

        async def looked_at(info: DeviceInfo = info) -> bool:
            found = await registry.devices.get(peer.device.id)
            return bool(found and found.declared_spaces.keys() == info.spaces.keys())

        await peer.send("info", info)
        await until(looked_at)
    # The settings of this bridge define one space, and there is the built-in one.
    assert (len(await registry.spaces.records()), bridge.presence.counters["space_conflicts"]) == (64, 18)
    assert "face:fake-0" not in await registry.spaces.models()


async def test_an_event_that_the_driver_would_read_as_a_reference_is_rejected(peer: Peer) -> None:
    """An object with the key `$ref` would return as a DBRef, which JSON cannot show."""
    bad = event(1, peer.device.id, metadata={"a": {"$ref": "events", "$id": 1}})
    await peer.send("event/facial_id", json.dumps(bad).encode())
    (rejection,) = (await peer.receive("receipt")).rejected
    assert (rejection.event_id, rejection.code) == (bad["event_id"], "event-invalid")


def test_a_key_chosen_by_the_sender_cannot_forge_a_log_line() -> None:
    """The name of the wrong field is printable in the error."""
    body = json.dumps(HEARTBEAT | {"temperatures": {"x\nERROR forged": "warm"}}).encode()
    with pytest.raises(ContractError) as refused:
        channels.HEARTBEAT.decode(body)
    assert "forged" in str(refused.value)
    assert str(refused.value).isprintable()


async def test_waiting_rejections_are_bounded_in_bytes(registry: Registry) -> None:
    """A thousand packets of 1 MiB do not fill a gigabyte of memory."""
    refusals = RejectionHandler(registry, unused)
    payload = bytes(2**20)
    for _ in range(40):
        refusals.reject("x", payload, ContractError(PAYLOAD_INVALID, "rubbish"))
    assert refusals.counters["dropped_queue_full"] == 8
    running = asyncio.create_task(refusals.handle_rejections())

    async def stored() -> bool:
        return refusals.counters["dead_letters"] == 32

    await until(stored)
    running.cancel()
    refusals.reject("x", payload, ContractError(PAYLOAD_INVALID, "rubbish"))
    assert refusals.counters["dropped_queue_full"] == 8


async def test_pages_of_a_space_with_many_dimensions_fit_into_a_packet(
    registry: Registry, program: BridgeProgram, fresh_device: FreshDevice
) -> None:
    """Pages are cut by bytes: an oversized packet would cost the connection."""
    wide = EmbeddingSpace("face:wide", 4096)
    await registry.spaces.ensure(wide)
    random = np.random.default_rng(1)
    await registry.identities.enroll_many(
        [
            EnrollIdentity(f"EMP-{n}", (Template(wide.id, normalise(random.standard_normal(4096), 4096)),))
            for n in range(60)
        ]
    )
    answers = SyncResponder(registry, unused, program.bridge)
    payload = (await answers.answer(fresh_device.id, SyncRequest(request_id="r", limit=5000))).to_json()
    assert len(payload) < 300 * 1024
    page = SyncPage.model_validate_json(payload)
    assert (page.done, page.upserts != []) == (False, True)


async def test_a_message_above_the_brokers_limit_is_not_sent(peer: Peer, bridge: Bridge) -> None:
    """An oversized message is counted, and the connection stays open."""
    detail = "x" * 1000
    huge = Receipts(rejected=[Rejection(event_id="e", code="event-invalid", detail=detail)] * 1100)
    assert not await bridge.link.publish(channels.RECEIPT, huge, device_id=peer.device.id)
    small = Receipts(rejected=[Rejection(event_id="e", code="event-invalid", detail="small")])
    assert await bridge.link.publish(channels.RECEIPT, small, device_id=peer.device.id)
    assert (await peer.receive("receipt")).rejected[0].detail == "small"
    assert (bridge.link.counters["publish_too_large"], bridge.link.counters["disconnects"]) == (1, 0)


async def test_many_messages_at_once_log_no_warning(
    peer: Peer, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    """Receipts for many devices in one batch log nothing."""
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(
            *(bridge.link.publish(channels.RECEIPT, Receipts(), device_id=peer.device.id) for _ in range(50))
        )
    # The bridge also tells of devices of other tests, whose messages the broker has retained.
    logged = [record.message for record in caplog.records]
    assert [line for line in logged if "device=" not in line or peer.device.id in line] == []
