"""What one sender can do to the bridge that serves everybody."""

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
    """A publisher for what is looked at before it is published."""
    return True


@pytest.mark.parametrize("field", ["temperatures", "refusals"])
async def test_a_key_that_bson_cannot_hold_does_not_end_the_bridge(
    peer: Peer, bridge: Bridge, registry: Registry, field: str
) -> None:
    """A heartbeat with NUL in a key is refused, and the next one is recorded."""

    async def recorded(fps: int) -> bool:
        found = await registry.devices.get(peer.device.id)
        return bool(found and (found.heartbeat or {}).get("fps") == fps)

    async def heard() -> bool:
        # Again and again: heartbeats are QoS 0, and the bridge may not listen to them yet.
        await peer.say("heartbeat", json.dumps(HEARTBEAT | {"fps": 6}).encode())
        return await recorded(6)

    await until(heard)
    await peer.say("heartbeat", json.dumps(HEARTBEAT | {field: {"a\0b": 1}}).encode())
    await peer.say("heartbeat", json.dumps(HEARTBEAT | {"fps": 7}).encode())
    await until(lambda: recorded(7))
    assert bridge.link.counters["refused_payload-invalid"] == 1


async def test_spaces_that_a_device_makes_up_do_not_make_the_heads_too_large(
    peer: Peer, bridge: Bridge, registry: Registry
) -> None:
    """Each head names each space. Past a bound no device adds one; the spaces before it stay in use."""
    for n in range(0, 80, 16):
        made_up = {f"face:fake-{k}": SpaceInfo(dimension=8, model_sha256="f" * 64) for k in range(n, n + 16)}
        info = DeviceInfo(site_id=peer.device.site, software="0", spaces=made_up)

        async def looked_at(info: DeviceInfo = info) -> bool:
            found = await registry.devices.get(peer.device.id)
            return bool(found and found.declared_spaces.keys() == info.spaces.keys())

        await peer.say("info", info)
        await until(looked_at)
    # One is there from the settings of this bridge.
    assert (len(await registry.spaces.models()), bridge.presence.counters["space_conflicts"]) == (63, 17)


async def test_an_event_that_the_driver_would_read_as_a_reference_is_rejected(peer: Peer) -> None:
    """An object with the key `$ref` would come back as something that no list of events can show."""
    bad = event(1, peer.device.id, metadata={"a": {"$ref": "events", "$id": 1}})
    await peer.say("event/facial_id", json.dumps(bad).encode())
    (rejection,) = (await peer.hear("receipt")).rejected
    assert (rejection.event_id, rejection.code) == (bad["event_id"], "event-invalid")


def test_a_key_of_the_senders_choice_cannot_forge_a_line_of_a_log() -> None:
    """What names the field at fault is printable."""
    body = json.dumps(HEARTBEAT | {"temperatures": {"x\nERROR forged": "warm"}}).encode()
    with pytest.raises(ContractError) as refused:
        channels.HEARTBEAT.decode(body)
    assert "forged" in str(refused.value)
    assert str(refused.value).isprintable()


async def test_rubbish_that_waits_is_bounded_in_bytes(registry: Registry) -> None:
    """A thousand packets of 1 MiB would be a gigabyte."""
    refusals = RejectionHandler(registry, unused)
    payload = bytes(2**20)
    for _ in range(40):
        refusals.reject("x", payload, ContractError(PAYLOAD_INVALID, "rubbish"))
    assert refusals.counters["dropped_queue_full"] == 8
    running = asyncio.create_task(refusals.handle_rejections())

    async def kept() -> bool:
        return refusals.counters["dead_letters"] == 32

    await until(kept)
    running.cancel()
    refusals.reject("x", payload, ContractError(PAYLOAD_INVALID, "rubbish"))
    assert refusals.counters["dropped_queue_full"] == 8


async def test_pages_of_a_space_with_many_dimensions_fit_into_a_packet(
    registry: Registry, program: BridgeProgram, fresh_device: FreshDevice
) -> None:
    """Bytes are counted by each space's dimension, since an oversized packet costs the connection."""
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


async def test_what_a_broker_would_not_take_is_not_sent(peer: Peer, bridge: Bridge) -> None:
    """An oversized message is counted, and the connection that everybody uses stays."""
    detail = "x" * 1000
    huge = Receipts(rejected=[Rejection(event_id="e", code="event-invalid", detail=detail)] * 1100)
    assert not await bridge.link.publish(channels.RECEIPT, huge, device_id=peer.device.id)
    small = Receipts(rejected=[Rejection(event_id="e", code="event-invalid", detail="small")])
    assert await bridge.link.publish(channels.RECEIPT, small, device_id=peer.device.id)
    assert (await peer.hear("receipt")).rejected[0].detail == "small"
    assert (bridge.link.counters["publish_too_large"], bridge.link.counters["disconnects"]) == (1, 0)


async def test_many_messages_at_once_are_no_news(
    peer: Peer, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    """Receipts for many devices in one batch leave the log alone."""
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(
            *(bridge.link.publish(channels.RECEIPT, Receipts(), device_id=peer.device.id) for _ in range(50))
        )
    told = [record.message for record in caplog.records if record.name != "broker_bridge.devices.presence"]
    assert told == []
