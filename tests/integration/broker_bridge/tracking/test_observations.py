"""Observations in and assignments out, over a real broker."""

import itertools
import json
import time
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from broker_bridge.bootstrap import Bridge
from broker_bridge.contract import channels
from broker_bridge.contract.embeddings import Vector, to_base64
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.settings import BridgeProgram, BridgeSettings
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import Peer, connected, running
from tests.tracking_samples import SPACE, Faces
from tests.waiting import until


@pytest.fixture
def program(program: BridgeProgram) -> BridgeProgram:
    """A bridge that writes what it has seen at once."""
    return program.model_copy(
        update={
            "bridge": BridgeSettings(default_spaces={SPACE: 512}, poll_seconds=60),
            "tracking": TrackingSettings(db_sync_interval=0.1, lease_seconds=4),
        }
    )


@pytest.fixture
async def tracking(bridge: Bridge) -> Bridge:
    """A bridge that tracks and hears cameras."""
    await until(lambda: tracks(bridge))
    return bridge


async def tracks(bridge: Bridge) -> bool:
    return bridge.observations.is_tracking and bridge.link.is_subscribed(channels.OBSERVATION)


@pytest.fixture
def faces() -> Faces:
    return Faces()


PICTURES = itertools.count()


def payload(vector: Vector, **changed: Any) -> dict[str, Any]:
    """Return a face in a picture of its own, since a picture has a person once."""
    return {
        "track_id": "face_0",
        "bbox": [100.0, 150.0, 100.0, 250.0],
        "frame_size": [640, 480],
        "space": SPACE,
        "vector": to_base64(vector.astype("<f4").tobytes()),
        "quality": 0.9,
        "captured_at": format_time(datetime.now(timezone.utc) + timedelta(seconds=next(PICTURES) % 200)),
    } | changed


def a_second_ago() -> str:
    """Return the time of another picture than the present one.

    A person occurs once in a picture.
    """
    return format_time(datetime.now(timezone.utc) - timedelta(seconds=1))


async def observe(peer: Peer, document: dict[str, Any]) -> None:
    """Publish an observation as JSON by hand, also an invalid one."""
    await peer.send("observation", json.dumps(document).encode(), qos=0)


async def test_a_camera_gets_assignments(tracking: Bridge, peer: Peer, faces: Faces) -> None:
    person = faces.person()
    await observe(peer, payload(faces.of(person), captured_at=a_second_ago()))
    first = await peer.receive("assigned")
    assert (first.track_id, first.global_id, first.user_id, first.similarity) == ("face_0", 1, None, None)
    await observe(peer, payload(faces.of(person), track_id="face_7"))
    again = await peer.receive("assigned")
    assert (again.track_id, again.global_id) == ("face_7", 1)
    assert again.similarity > 0.6
    await observe(peer, payload(faces.person(), bbox=[400, 10, 80, 90], track_id="face_8"))
    # Not always the next: a tracker that lost its lease for a moment takes other numbers.
    assert (await peer.receive("assigned")).global_id > 1


async def test_an_enrolled_person_is_assigned_its_user_id(
    tracking: Bridge, registry: Registry, peer: Peer, faces: Faces
) -> None:
    person = faces.person()
    template = Template(SPACE, person.astype("<f4").tobytes())
    await registry.identities.enroll(EnrollIdentity("EMP-12345", (template,), display_name="Ana Petrova"))
    await observe(peer, payload(faces.of(person)))
    told = await peer.receive("assigned")
    assert (told.global_id, told.user_id) == (1, "EMP-12345")
    assert b"Ana" not in told.to_json()


async def test_a_deletion_takes_effect_within_a_second(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice, faces: Faces
) -> None:
    """Not only when what was seen is written next."""
    rarely = program.model_copy(update={"tracking": TrackingSettings(db_sync_interval=600)})
    person = faces.person()
    template = Template(SPACE, person.astype("<f4").tobytes())
    await registry.identities.enroll(EnrollIdentity("EMP-12345", (template,)))
    async with running(registry, rarely) as bridge, connected(mosquitto, fresh_device) as peer:
        await until(lambda: tracks(bridge))

        async def told() -> str | None:
            await observe(peer, payload(person))
            user_id: str | None = (await peer.receive("assigned")).user_id
            return user_id

        async def told_nobody() -> bool:
            return await told() is None

        assert await told() == "EMP-12345"
        await registry.identities.delete("EMP-12345")
        deleted_at = time.monotonic()
        await until(told_nobody)
        assert time.monotonic() - deleted_at < 1.0


async def test_sightings_are_written_while_tracking(
    tracking: Bridge, registry: Registry, peer: Peer, faces: Faces
) -> None:
    person = faces.person()
    for _ in range(3):
        await observe(peer, payload(faces.of(person)))
        await peer.receive("assigned")

    async def written() -> bool:
        return (await registry.detected_person_queries.get_group(1)).aggregate.total_detections == 3

    await until(written)
    known = (await registry.detected_person_queries.get_group(1)).aggregate
    assert known.cameras_visited == (peer.device.id,)
    assert known.site_id == peer.device.site


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"space": "face:nobody-knows-512"}, "space-unknown"),
        ({"vector": to_base64(np.full(512, np.nan, "<f4").tobytes())}, "vector-invalid"),
        ({"vector": to_base64(np.zeros(512, "<f4").tobytes())}, "vector-invalid"),
        ({"vector": to_base64(np.full(512, 3e38, "<f4").tobytes())}, None),
        ({"vector": to_base64(np.ones(256, "<f4").tobytes())}, "vector-invalid"),
        ({"vector": "not base64"}, "payload-invalid"),
        ({"vector": ""}, "payload-invalid"),
        ({"bbox": [0, 0, 641, 100]}, "payload-invalid"),
        ({"bbox": [0, 0, 1e300, 1e300], "frame_size": None}, "payload-invalid"),
        ({"bbox": [0, 0, -50, 100]}, "payload-invalid"),
        ({"bbox": [0, 0, 50, 0]}, "payload-invalid"),
        ({"bbox": [700, 0, 50, 50]}, "payload-invalid"),
        ({"bbox": [0, 0, float("nan"), 50]}, "payload-invalid"),
        ({"bbox": [0, 0, 50]}, "payload-invalid"),
        ({"quality": 1.5}, "payload-invalid"),
        ({"captured_at": "soon"}, "payload-invalid"),
        ({"captured_at": format_time(datetime.now(timezone.utc) + timedelta(hours=1))},
         "observation-time-implausible"),
        ({"captured_at": format_time(datetime.now(timezone.utc) - timedelta(hours=1))},
         "observation-time-implausible"),
        ({"captured_at": "9999-12-31T23:59:59.999Z"}, "observation-time-implausible"),
        ({"device_id": "cam-of-somebody-else"}, "device-mismatch"),
    ],
)  # fmt: skip
async def test_an_invalid_observation_is_rejected_counted_and_makes_no_person(
    tracking: Bridge,
    registry: Registry,
    peer: Peer,
    faces: Faces,
    changed: dict[str, Any],
    code: str | None,
) -> None:
    """Nothing of it is stored; the next valid observation is answered."""
    await observe(peer, payload(faces.person()) | changed)
    await observe(peer, payload(faces.person(), track_id="good"))
    heard = [await peer.receive("assigned")]
    while heard[-1].track_id != "good":
        heard.append(await peer.receive("assigned"))
    if code is None:
        assert len(heard) == 2
        return
    assert len(heard) == 1
    assert tracking.observations.counters[f"refused_{code}"] == 1
    assert await registry.mongo.db.persons.count_documents({}) == 1
    assert await registry.mongo.db.dead_letters.count_documents({}) == 0


async def test_a_retained_observation_is_ignored(tracking: Bridge, peer: Peer, faces: Faces) -> None:
    await peer.send("observation", json.dumps(payload(faces.person())).encode(), retain=True)
    await observe(peer, payload(faces.person(), track_id="live"))
    assert (await peer.receive("assigned")).track_id == "live"


async def test_edits_by_the_api_apply_at_once(
    tracking: Bridge, registry: Registry, peer: Peer, faces: Faces
) -> None:
    """Merge, unmerge and delete apply to persons in the tracker's memory."""
    one, other = faces.person(), faces.person()
    numbers = []
    for track, person in (("a", one), ("b", other)):
        seen = payload(faces.of(person), track_id=track, bbox=[10, 10, 50, 60], captured_at=a_second_ago())
        await observe(peer, seen)
        numbers.append((await peer.receive("assigned")).global_id)
    first, second = numbers
    now = datetime.now(timezone.utc)

    async def told_of(person: Vector) -> int:
        await observe(peer, payload(faces.of(person), track_id="later", bbox=[300, 10, 50, 60]))
        told: int = (await peer.receive("assigned")).global_id
        return told

    await registry.detected_person_edits.merge(second, first, by="operator", now=now)

    async def merged() -> bool:
        return await told_of(other) == first

    await until(merged)
    await registry.detected_person_edits.unmerge(second, by="operator", now=now)

    async def parted() -> bool:
        return await told_of(other) == second

    await until(parted)
    await registry.detected_person_edits.delete(second, by="operator", now=now)

    async def gone() -> bool:
        return await told_of(other) > second

    await until(gone)
    assert await told_of(one) == first


async def test_two_workers_have_one_tracker_and_the_next_keeps_the_ids(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice, faces: Faces
) -> None:
    """Each observation is answered once, also when the other worker takes over."""
    people = [faces.person() for _ in range(5)]
    async with AsyncExitStack() as first_runs, AsyncExitStack() as stack:
        first = await first_runs.enter_async_context(running(registry, program))
        await until(lambda: tracks(first))
        second = await stack.enter_async_context(running(registry, program))
        peer = await stack.enter_async_context(connected(mosquitto, fresh_device))

        async def meet(number: int, when: str) -> int:
            seen = payload(
                faces.of(people[number]), track_id=f"{when} {number}", bbox=[90 * number, 0, 80, 90]
            )
            await observe(peer, seen)
            told = await peer.receive("assigned")
            assert told.track_id == f"{when} {number}"
            return int(told.global_id)

        before = [await meet(number, "before") for number in range(5)]
        assert sorted(before) == [1, 2, 3, 4, 5]
        assert not second.observations.is_tracking
        await first_runs.aclose()
        await until(lambda: tracks(second))
        assert [await meet(number, "after") for number in range(5)] == before
        assert peer.received.empty()
