import asyncio
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import pytest

from broker_bridge.bootstrap import Bridge
from broker_bridge.contract.channels import decode
from broker_bridge.registry import Registry
from broker_bridge.registry.events.model import IncomingEvent, RecordedEvents
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import Peer, connected, event, running
from tests.waiting import until


def body(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


async def test_an_event_is_recorded_and_receipted(peer: Peer, registry: Registry) -> None:
    """The receipt has the event id; the event is stored with its site before it."""
    sent = event(1, peer.device.id)
    await peer.send("event/facial_id", body(sent))
    receipts = await peer.receive("receipt")
    assert (receipts.stored, receipts.rejected) == ([sent["event_id"]], [])
    stored = await registry.events.get(peer.device.id, sent["event_id"])
    assert stored is not None
    assert (stored.user_id, stored.site_id) == ("EMP-12345", peer.device.site)


async def test_a_repeat_gets_its_receipt_again_and_is_stored_once(peer: Peer, registry: Registry) -> None:
    """A device that missed the receipt repeats the event and gets a receipt again."""
    sent = event(1, peer.device.id)
    for document in (sent, sent, sent | {"metadata": {"replayed": True}}):
        await peer.send("event/facial_id", body(document))
        assert (await peer.receive("receipt")).stored == [sent["event_id"]]
    assert await registry.mongo.db.events.count_documents({}) == 1


@pytest.mark.parametrize(
    ("change", "topic", "code"),
    [
        ({"confidence": math.nan}, "facial_id", "event-invalid"),
        ({"confidence": 7}, "facial_id", "event-invalid"),
        ({"device_id": "cam-666"}, "facial_id", "device-mismatch"),
        ({"metadata": {"n": 2**70}}, "facial_id", "event-invalid"),
        ({"metadata": {"a\0b": 1}}, "facial_id", "event-invalid"),
        ({"metadata": {"liveness": {"score": 1.1, "method": "depth"}}}, "facial_id", "event-invalid"),
        ({"user_id": "a/b"}, "facial_id", "event-invalid"),
        ({"timestamp": "1970-01-01T00:00:07.000Z"}, "facial_id", "event-time-implausible"),
        ({"timestamp": "2099-01-01T00:00:00.000Z"}, "facial_id", "event-time-implausible"),
        ({"timestamp": "0000-01-01T00:00:00.000Z"}, "facial_id", "event-invalid"),
        ({}, "visit", "event-invalid"),
        ({"event_id": "no-event-id"}, "facial_id", "event-invalid"),
    ],
)
async def test_a_bad_event_is_rejected_with_a_code_and_its_neighbours_are_stored(
    peer: Peer, registry: Registry, change: dict[str, Any], topic: str, code: str
) -> None:
    """One event is rejected with a stable code; the events around it are stored."""
    bad = event(2, peer.device.id, **change)
    await peer.send("event/facial_id", body(event(1, peer.device.id)))
    await peer.send(f"event/{topic}", body(bad))
    await peer.send("event/facial_id", body(event(3, peer.device.id)))
    stored, rejected = [], []
    while len(stored) + len(rejected) < 3:
        receipts = await peer.receive("receipt")
        stored += receipts.stored
        rejected += receipts.rejected
    assert [(r.event_id, r.code) for r in rejected] == [(bad["event_id"], code)]
    assert len(stored) == 2
    assert await registry.mongo.db.events.count_documents({}) == 2


async def test_a_decommissioned_device_records_no_events(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """Devices register themselves here, and this one only with an admin."""
    now = datetime.now(timezone.utc)
    sent = event(1, fresh_device.id)
    await registry.devices.register(fresh_device.id, fresh_device.site)
    await registry.placements.decommission(fresh_device.id, by="tester", now=now)
    auto = program.model_copy(update={"bridge": program.bridge.model_copy(update={"auto_register": True})})
    async with running(registry, auto), connected(mosquitto, fresh_device) as peer:
        await peer.send("event/facial_id", body(sent))
        assert [found.code for found in (await peer.receive("receipt")).rejected] == ["device-unknown"]
        await registry.devices.register(fresh_device.id, fresh_device.site, by="tester")
        await peer.send("event/facial_id", body(sent))
        assert (await peer.receive("receipt")).stored == [sent["event_id"]]


async def test_an_event_with_the_retain_flag_is_rejected(peer: Peer, registry: Registry) -> None:
    """The broker would send it again at every connect; it has its own code."""
    sent = event(1, peer.device.id)
    await peer.send("event/facial_id", body(sent), retain=True)
    receipts = await peer.receive("receipt")
    assert [(r.event_id, r.code) for r in receipts.rejected] == [(sent["event_id"], "event-retained")]
    assert await registry.mongo.db.events.count_documents({}) == 0
    await peer.send("event/facial_id", b"", retain=True)


async def test_an_unreadable_event_is_a_dead_letter(peer: Peer, registry: Registry) -> None:
    """Topic, bytes and reason are stored; the next event is stored as usual."""
    await peer.send("event/facial_id", b"\xff\xfe not json")
    await peer.send("event/facial_id", body(event(1, peer.device.id)))
    assert (await peer.receive("receipt")).stored

    async def kept() -> bool:
        return len(await registry.dead_letters.newest()) == 1

    await until(kept)
    (dead_letter,) = await registry.dead_letters.newest()
    assert (dead_letter["code"], bytes(dead_letter["payload"])) == ("payload-invalid", b"\xff\xfe not json")
    assert dead_letter["topic"].endswith("/up/event/facial_id")


@pytest.mark.parametrize(
    "damage",
    [
        lambda payload: payload + b"\0",
        lambda payload: payload[:-1],
        lambda payload: payload[: payload.index(b"confidence") + 3],
        lambda payload: b"\xef\xbb\xbf" + payload + b"\r\n\0",
        lambda payload: payload.replace(b"0.92", b"NaN"),
        lambda payload: payload.replace(b"}}", b"},}"),
        lambda payload: payload.replace(b"EMP-12345", b"EMP-\xff\xfe"),
        lambda payload: payload.replace(b"0.28", b"[" * 3000 + b"]" * 3000),
        lambda payload: payload.replace(b"0.28", b"9" * 6000),
    ],
)
async def test_an_event_that_cannot_be_parsed_is_rejected_by_its_id(
    peer: Peer, bridge: Bridge, registry: Registry, damage: Callable[[bytes], bytes]
) -> None:
    """Its device gets a receipt and need not send it for ever."""
    sent = event(1, peer.device.id)
    damaged = damage(body(sent))
    await peer.send("event/facial_id", damaged)
    (rejection,) = (await peer.receive("receipt")).rejected
    assert (rejection.event_id, rejection.code) == (sent["event_id"], "event-invalid")
    assert bridge.health()["rejected_bytes_by_device"] == {peer.device.id: len(damaged)}
    assert await registry.dead_letters.newest() == []


async def test_a_registration_that_cannot_be_parsed_is_answered(peer: Peer, registry: Registry) -> None:
    """Its vector is not stored among the dead letters."""
    await peer.send("enrollment/register", b'{"request_id":"r-7","kind":"visitor","space":"face:test-8","vec')
    answer = await peer.receive("registered")
    assert (answer.request_id, answer.result, answer.error.code) == ("r-7", "rejected", "payload-invalid")
    assert await registry.dead_letters.newest() == []


async def test_another_event_under_a_known_id_is_rejected(peer: Peer, registry: Registry) -> None:
    """The first one stays, and the second is a dead letter."""
    first = event(1, peer.device.id)
    for document in (first, first | {"user_id": "EMP-2"}):
        await peer.send("event/facial_id", body(document))
    stored, rejected = [], []
    while len(stored) + len(rejected) < 2:
        receipts = await peer.receive("receipt")
        stored += receipts.stored
        rejected += receipts.rejected
    assert stored == [first["event_id"]]
    assert [(r.event_id, r.code) for r in rejected] == [(first["event_id"], "event-conflict")]
    found = await registry.events.get(peer.device.id, first["event_id"])
    assert found is not None
    assert found.user_id == "EMP-12345"
    (letter,) = await registry.dead_letters.newest()
    assert json.loads(letter["payload"])["user_id"] == "EMP-2"


async def test_an_oversized_event_is_rejected(peer: Peer, registry: Registry) -> None:
    """The device receives `payload-too-large`."""
    sent = event(1, peer.device.id, image="A" * 300_000)
    await peer.send("event/facial_id", body(sent))
    (rejection,) = (await peer.receive("receipt")).rejected
    assert rejection.code == "payload-too-large"


async def test_events_of_an_unregistered_device_are_rejected(
    bridge: Bridge, mosquitto: Mosquitto, registry: Registry, fresh_device: FreshDevice
) -> None:
    """The code is `device-unknown` until the device is registered."""
    await registry.mongo.db.devices.delete_one({"_id": fresh_device.id})
    async with connected(mosquitto, fresh_device) as unregistered:
        await unregistered.send("event/facial_id", body(event(1, fresh_device.id)))
        (rejection,) = (await unregistered.receive("receipt")).rejected
    assert rejection.code == "device-unknown"


async def test_a_full_queue_drops_events_without_a_receipt(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """Memory is bounded: a dropped event gets no receipt, so its device repeats it."""
    small = program.model_copy(
        update={"bridge": program.bridge.model_copy(update={"queue_events": 5, "batch_events": 1})}
    )
    async with running(registry, small) as worker, connected(mosquitto, fresh_device) as peer:
        for n in range(300):
            worker.ingest.accept_event(_decoded(n, fresh_device.id), b"{}", lambda: None)
        stored: list[str] = []
        while len(stored) < 5:
            stored += (await peer.receive("receipt")).stored
        assert worker.ingest.counters["dropped_queue_full"] == 295
        assert await registry.mongo.db.events.count_documents({}) == 5


async def test_full_batches_are_prepared_while_one_is_written(
    registry: Registry,
    program: BridgeProgram,
    mosquitto: Mosquitto,
    fresh_device: FreshDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most three are in work, and one that is not full gathers until they are done."""
    record, written = registry.events.record, asyncio.Event()
    sizes: list[int] = []

    async def record_later(batch: Sequence[IncomingEvent]) -> RecordedEvents:
        sizes.append(len(batch))
        await written.wait()
        return await record(batch)

    monkeypatch.setattr(registry.events, "record", record_later)
    of_two = program.model_copy(update={"bridge": program.bridge.model_copy(update={"batch_events": 2})})
    async with running(registry, of_two) as worker, connected(mosquitto, fresh_device) as peer:

        async def accept(*numbers: int, expect: list[int]) -> None:
            for n in numbers:
                worker.ingest.accept_event(_decoded(n, fresh_device.id), b"{}", lambda: None)

            async def begun() -> bool:
                return sizes == expect

            await until(begun)

        await accept(1, expect=[1])
        await accept(2, expect=[1])
        await accept(3, expect=[1, 2])
        await accept(4, 5, 6, 7, 8, expect=[1, 2, 2])
        written.set()
        stored: set[str] = set()
        while len(stored) < 8:
            stored.update((await peer.receive("receipt")).stored)
        assert sum(sizes) == 8
        assert await registry.mongo.db.events.count_documents({}) == 8


def _decoded(n: int, device_id: str) -> Any:
    return decode(f"wfm/v1/device/{device_id}/up/event/facial_id", body(event(n, device_id)))


async def test_two_workers_share_the_load_and_one_leads(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """Each event is handled by one worker, and one publishes heads and deltas."""
    async with (
        running(registry, program) as first,
        running(registry, program) as second,
        connected(mosquitto, fresh_device) as peer,
    ):
        for n in range(40):
            await peer.send("event/facial_id", body(event(n, fresh_device.id)))
        stored: set[str] = set()
        while len(stored) < 40:
            stored.update((await peer.receive("receipt")).stored)

        async def one_leads() -> bool:
            return first.publisher_election.is_leading != second.publisher_election.is_leading

        await until(one_leads)
        assert first.ingest.counters["stored"] + second.ingest.counters["stored"] == 40
        assert min(first.ingest.counters["stored"], second.ingest.counters["stored"]) > 0
