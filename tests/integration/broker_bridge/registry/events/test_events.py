from datetime import datetime, timezone

import pytest
from pymongo.errors import PyMongoError

from broker_bridge.contract.messages import Event
from broker_bridge.registry import Registry
from broker_bridge.registry.events.event_filter import EventFilter
from broker_bridge.registry.events.model import IncomingEvent

NOW = datetime(2026, 1, 15, 10, 0, 1, tzinfo=timezone.utc)
JPEG = "/9j/4AAQSkZJRg=="


def incoming(n: int, device: str = "cam-001", **changed: object) -> IncomingEvent:
    fields = {
        "event_id": f"EV1-1736942400000-{n:06x}",
        "device_id": device,
        "user_id": "EMP-12345",
        "event_type": "facial_id",
        "timestamp": "2026-01-15T10:00:00.000Z",
        "confidence": 0.92,
        "metadata": {"distance": 0.28},
    }
    return IncomingEvent(Event.model_validate(fields | changed), "lobby", NOW)


async def count(registry: Registry) -> int:
    return int(await registry.mongo.db.events.count_documents({}))


async def test_a_repeated_event_counts_as_stored_and_changes_nothing(registry: Registry) -> None:
    """A repeat, replayed or not, leaves one document and is reported as stored."""
    await registry.events.record([incoming(1), incoming(2)])
    unmarked = await registry.events.record([incoming(2), incoming(3)])
    marked = await registry.events.record([incoming(1, metadata={"replayed": True}), incoming(4)])
    assert await count(registry) == 4
    assert unmarked.stored == {incoming(2).key, incoming(3).key}
    assert marked.stored == {incoming(1).key, incoming(4).key}
    assert (unmarked.repeats, marked.repeats) == (1, 1)
    first = await registry.events.get("cam-001", incoming(1).event.event_id)
    assert first is not None
    assert "replayed" not in first.metadata


async def test_two_devices_may_use_the_same_event_id(registry: Registry) -> None:
    """The key is (device_id, event_id)."""
    await registry.events.record([incoming(1), incoming(1, device="cam-002")])
    assert await count(registry) == 2


async def test_a_repeat_within_a_batch_is_stored_once(registry: Registry) -> None:
    """A device that repeats itself within a batch is recorded once."""
    await registry.events.record([incoming(1), incoming(1)])
    assert await count(registry) == 1


async def test_an_event_that_bson_cannot_hold_is_rejected_alone(registry: Registry) -> None:
    """The other ninety-nine events of the batch are stored."""
    batch = [incoming(n) for n in range(99)]
    # `model_copy` skips validation, as a bug in the bridge would.
    bad = incoming(99).event.model_copy(update={"metadata": {"big": 2**70}})
    recorded = await registry.events.record([*batch, IncomingEvent(bad, "lobby", NOW)])
    assert await count(registry) == 99
    assert [r.code for r in recorded.rejected.values()] == ["event-invalid"]


async def test_an_image_is_stored_apart_and_an_invalid_one_is_dropped(registry: Registry) -> None:
    """The event reports whether it has an image, and the error of a dropped one."""
    await registry.events.record([incoming(1, image=JPEG), incoming(2, image="<base64-jpeg>")])
    with_image = await registry.events.get("cam-001", incoming(1).event.event_id)
    with_bad_image = await registry.events.get("cam-001", incoming(2).event.event_id)
    assert with_image is not None
    assert with_bad_image is not None
    assert with_image.has_image
    assert "image" not in with_image.to_wire()
    assert (with_bad_image.has_image, with_bad_image.image_error) == (False, "image-invalid")
    image = await registry.events.image("cam-001", incoming(1).event.event_id)
    assert image is not None
    assert image.startswith(b"\xff\xd8")


async def test_a_failed_write_is_raised_and_never_reported_as_stored(registry: Registry) -> None:
    """Without durable writes there is no result from which to send receipts."""
    events = registry.mongo.db.events
    await registry.mongo.db.command("collMod", "events", validator={"user_id": {"$ne": "EMP-666"}})
    with pytest.raises(PyMongoError):
        await registry.events.record([incoming(1), incoming(2, user_id="EMP-666")])
    assert await events.count_documents({"user_id": "EMP-666"}) == 0


async def test_events_are_paged_newest_first(registry: Registry) -> None:
    """Pages by cursor contain each event once, also events of the same time."""
    await registry.events.record([incoming(n) for n in range(7)])
    event_ids, before = [], None
    while page := await registry.events.page(EventFilter(device_id="cam-001"), before=before, limit=3):
        event_ids += [found.event_id for found in page]
        before = (page[-1].received_at, page[-1].key)
    assert event_ids == [incoming(n).event.event_id for n in range(6, -1, -1)]
