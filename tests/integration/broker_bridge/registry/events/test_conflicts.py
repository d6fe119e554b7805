"""One event id names one event: another one under it is kept aside."""

import asyncio
from typing import Any

import pytest

from broker_bridge.contract.messages import Event
from broker_bridge.registry import Registry
from broker_bridge.registry.events.model import IncomingEvent
from tests.integration.broker_bridge.registry.events.test_events import JPEG, NOW, incoming

UNKNOWN: dict[str, Any] = {"event_type": "unknown", "user_id": None}
EMOTION: dict[str, Any] = {"event_type": "emotion", "emotion_code": "EV2.2"}


@pytest.mark.parametrize(
    ("first", "second", "fields"),
    [
        ({}, {"user_id": "EMP-2"}, "user_id"),
        ({}, {"event_type": "visit"}, "event_type"),
        ({}, UNKNOWN, "event_type, user_id"),
        (UNKNOWN, {}, "event_type, user_id"),
        (EMOTION, {**EMOTION, "emotion_code": "EV2.3"}, "emotion_code"),
        ({}, {"user_id": "emp-12345"}, "user_id"),
        ({}, {"user_id": "EMP-2", "image": JPEG, "metadata": {"replayed": True}}, "user_id"),
    ],
)
@pytest.mark.parametrize("one_batch", [True, False])
async def test_another_event_under_an_id_is_rejected_and_kept(
    registry: Registry, first: dict[str, Any], second: dict[str, Any], fields: str, *, one_batch: bool
) -> None:
    """The first one stays as it is, without the image of the second."""
    kept, other = incoming(1, **first), incoming(1, **second)
    recorded = [
        await registry.events.record(batch) for batch in ([[kept, other]] if one_batch else [[kept], [other]])
    ]
    [(place, rejection)] = recorded[-1].rejected.items()
    assert (place, rejection.code) == (1 if one_batch else 0, "event-conflict")
    assert rejection.detail.endswith(f"differs in {fields}")
    assert recorded[0].stored == {kept.key}
    stored = await registry.events.get("cam-001", kept.event.event_id)
    assert stored is not None
    assert (stored.user_id, stored.event_type) == (kept.event.user_id, kept.event.event_type)
    assert await registry.events.image("cam-001", kept.event.event_id) is None
    [letter] = await registry.dead_letters.newest()
    assert letter["code"] == "event-conflict"
    assert Event.model_validate_json(letter["payload"]) == other.event
    assert letter["topic"] == f"wfm/v1/device/cam-001/up/event/{other.event.event_type}"


@pytest.mark.parametrize(
    "changed",
    [
        {"metadata": {"distance": 0.28, "replayed": True}},
        {"metadata": {}},
        {"image": None},
        {"image": "no JPEG"},
        {"timestamp": "2026-01-15T09:00:00.000Z"},
        {"confidence": 0.9199999},
    ],
)
async def test_a_repeat_is_no_conflict(registry: Registry, changed: dict[str, Any]) -> None:
    """Outbox and clock may change metadata, time and image between two sends."""
    await registry.events.record([incoming(1, image=JPEG)])
    repeated = await registry.events.record([incoming(1, **changed), incoming(1, image=JPEG)])
    assert (repeated.stored, repeated.rejected, repeated.repeats) == ({incoming(1).key}, {}, 1)
    assert await registry.dead_letters.newest() == []


async def test_a_repeat_after_an_erasure_is_no_conflict(registry: Registry) -> None:
    """Either the recorded event or the repeat has the pseudonym."""
    pseudonym = {"user_id": "ERASED-0a1b2c3d4e5f"}
    await registry.events.record([incoming(1), incoming(2)])
    await registry.mongo.db.events.update_one({"_id": incoming(1).key}, {"$set": pseudonym})
    erased = IncomingEvent(incoming(2).event.model_copy(update=pseudonym), "lobby", NOW)
    recorded = await registry.events.record([incoming(1), erased])
    assert recorded.rejected == {}


async def test_of_two_workers_the_first_one_keeps_its_event(registry: Registry) -> None:
    """Event and image are of one person, whichever worker was first."""
    pairs = [(incoming(n, image=JPEG), incoming(n, user_id="EMP-2")) for n in range(10)]
    results = await asyncio.gather(*(registry.events.record([item]) for pair in pairs for item in pair))
    assert sum(len(result.rejected) for result in results) == 10
    for mine, other in pairs:
        stored = await registry.events.get("cam-001", mine.event.event_id)
        assert stored is not None
        has_image = await registry.events.image("cam-001", mine.event.event_id) is not None
        assert (stored.user_id, has_image) in {(mine.event.user_id, True), (other.event.user_id, False)}
        assert stored.has_image == has_image


async def test_an_image_without_its_event_does_not_stop_a_batch(registry: Registry) -> None:
    """An earlier release wrote images first, and may have ended before the event."""
    orphan = {"_id": incoming(1).key, "jpeg": b"\xff\xd8 of nothing", "stored_at": NOW}
    await registry.mongo.db.event_images.insert_one(orphan)
    recorded = await registry.events.record([incoming(1, image=JPEG), incoming(2, image=JPEG)])
    assert recorded.stored == {incoming(1).key, incoming(2).key}
    image = await registry.events.image("cam-001", incoming(1).event.event_id)
    assert image is not None
    assert b"of nothing" not in image
