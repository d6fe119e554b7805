"""While the tracker waits for MongoDB, no sighting is lost or doubled."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import Box
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.tracking.tracker import Tracker
from tests.tracking_samples import BEGAN, SPACE, Faces, at, observed, unit


@pytest.fixture
async def tracker(registry: Registry) -> Tracker:
    return new_tracker(registry)


def new_tracker(registry: Registry) -> Tracker:
    return Tracker(registry, TrackingSettings())


async def enroll(registry: Registry, user_id: str, vector: Vector) -> None:
    template = Template(SPACE, vector.astype("<f4").tobytes())
    await registry.identities.enroll(EnrollIdentity(user_id, (template,)))


def afterwards(patch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], Awaitable[None]]) -> None:
    """Run `act` once, when `owner.name` has its result and before it returns."""
    original = getattr(owner, name)

    async def asked(*given: Any) -> Any:
        answer = await original(*given)
        patch.setattr(owner, name, original)
        await act()
        return answer

    patch.setattr(owner, name, asked)


async def test_a_sighting_during_an_eviction_is_counted(
    registry: Registry, tracker: Tracker, faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit evicts the person; a sighting during the write is counted too."""
    person = faces.person()
    await tracker.match_or_create(observed(faces.of(person)))

    async def look() -> None:
        assert tracker.match_active(observed(person, at=1))

    afterwards(monkeypatch, registry.tracker_store, "write_segments", look)
    await tracker.reload([1], at(1))
    assert len(tracker) == 0
    await tracker.match_or_create(observed(person, at=2))
    await tracker.write_pending(at(3))
    assert (await registry.detected_person_queries.get_group(1)).aggregate.total_detections == 3
    (stay,) = await registry.tracker_store.segments_since([1], BEGAN)
    assert stay.detections == 3


async def test_a_person_elsewhere_in_the_picture_leads_to_a_lookup(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """Of two similar faces in one picture the second is an older person."""
    back = faces.person()
    here = faces.like(back, 0.5)
    between = unit(back + 0.3 * here)
    await tracker.match_or_create(observed(back))
    tracker = new_tracker(registry)
    second = (await tracker.match_or_create(observed(here, at=600))).global_id
    assert second != 1
    both = [
        observed(here, track="a", at=610, box=Box(0, 0, 90, 90)),
        observed(between, track="b", at=610, box=Box(900, 0, 90, 90)),
    ]
    assert (await new_tracker(registry).match_or_create(both[1])).global_id == 1
    assert [one.global_id for one in await tracker.assign_batch(both)] == [second, 1]


async def test_a_tracker_that_was_frozen_overwrites_nothing_newer(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """It had the lease at the start of the write; another has taken over since."""
    person = faces.person()
    await tracker.match_or_create(observed(person))
    await tracker.write_pending(at(1))
    assert tracker.match_active(observed(person, at=2, camera="cam-002"))
    other = new_tracker(registry)
    await other.load_recent(at(3))
    for step in range(4, 14):
        assert other.match_active(observed(person, at=step))
    await other.write_pending(at(14))
    await tracker.write_pending(at(15))
    known = (await registry.detected_person_queries.get_group(1)).aggregate
    assert (known.total_detections, known.last_seen) == (11, at(13))
    (stay,) = await registry.tracker_store.segments_since([1], at(5))
    assert (stay.until, stay.detections) == (at(13), 11)


async def test_a_tracker_that_lost_its_lease_creates_no_person(
    registry: Registry, faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tracker has assigned them meanwhile, under another id."""
    holds = True
    frozen = Tracker(registry, TrackingSettings(), may_track=lambda: holds)

    async def freeze() -> None:
        nonlocal holds
        holds = False

    afterwards(monkeypatch, registry.tracker_store, "take_ids", freeze)
    with pytest.raises(RegistryError):
        await frozen.assign_batch([observed(faces.person())])
    assert await registry.mongo.db.persons.count_documents({}) == 0


async def test_a_restored_counter_gives_no_used_id(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """In an inconsistent backup the counter is older than the persons."""
    told = [(await tracker.match_or_create(observed(faces.person()))).global_id for _ in range(3)]
    await registry.mongo.db.meta.delete_one({"_id": "global-ids"})
    other = new_tracker(registry)
    again = await other.assign_batch([observed(faces.person(), camera=f"cam-{step:03}") for step in range(3)])
    assert not {one.global_id for one in again} & set(told)
    assert await registry.mongo.db.persons.count_documents({}) == 6


async def test_a_restore_under_a_running_tracker_gives_no_id_twice(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """Counter and persons are restored; ids published since are not reused."""
    told = [(await tracker.match_or_create(observed(faces.person()))).global_id for _ in range(3)]
    for collection in ("persons", "person_faces"):
        await registry.mongo.db[collection].delete_many({})
    await registry.mongo.db.meta.delete_one({"_id": "global-ids"})
    await tracker.reload_all(at(1))
    # A person from before the backup, and the newest of another tracker.
    await registry.tracker_store.take_ids(200)
    met = [observed(faces.person(), camera=f"cam-{step:03}", at=2) for step in range(3)]
    again = [one.global_id for one in await tracker.assign_batch(met)]
    assert not set(again) & set(told)
    assert min(again) > 200


async def test_a_user_id_is_published_during_a_refresh(
    registry: Registry, tracker: Tracker, faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the refresh fails: no enrolled person loses its user id."""
    person = faces.person()
    await enroll(registry, "EMP-12345", person)
    await tracker.match_or_create(observed(person))
    told = []

    async def look() -> None:
        told.append(tracker.match_active(observed(person, at=1)))
        if len(told) > 1:
            raise RegistryError("MongoDB is away")

    identity_store = registry.identity_store
    afterwards(monkeypatch, identity_store, "find_by_id", look)
    await tracker.refresh_identities()
    afterwards(monkeypatch, identity_store, "find_by_id", look)
    with pytest.raises(RegistryError):
        await tracker.refresh_identities()
    told.append(tracker.match_active(observed(person, at=2)))
    assert [one and one.user_id for one in told] == ["EMP-12345"] * 3


async def test_the_identity_of_a_merged_person_gets_no_second_id(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """The link is on the member; a pose of the enrollment finds the root."""
    person, pose, other = faces.person(), faces.person(), faces.person()
    await enroll(registry, "EMP-12345", person)
    await enroll(registry, "EMP-12345", pose)
    await tracker.match_or_create(observed(other))
    assert (await tracker.match_or_create(observed(person, at=5))).user_id == "EMP-12345"
    await registry.detected_person_edits.merge(2, 1, by="operator", now=at(6))
    tracker = new_tracker(registry)
    told = await tracker.match_or_create(observed(faces.like(pose, 0.9), at=600))
    assert (told.global_id, told.user_id) == (1, "EMP-12345")


async def test_a_reload_of_a_merged_id_evicts_its_root(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    await tracker.match_or_create(observed(person))
    await tracker.match_or_create(observed(faces.person(), at=5))
    await registry.detected_person_edits.merge(2, 1, by="operator", now=at(6))
    tracker = new_tracker(registry)
    await tracker.load_recent(at(7))
    assert len(tracker) == 1
    await tracker.reload([2], at(8))
    assert len(tracker) == 0


async def test_a_damaged_centroid_does_not_stop_the_others(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """The person has no usable centroid: its next face is a new person."""
    person, other = faces.person(), faces.person()
    for step, one in enumerate((person, other)):
        await tracker.match_or_create(observed(one, at=step))
    face = FaceCentroid.from_vector(SPACE, unit(person[:8]), 0.9)
    await registry.tracker_store.write_centroids([(1, face)])
    tracker = new_tracker(registry)
    await tracker.load_recent(at(2))
    assert len(tracker) == 2
    assert (await tracker.match_or_create(observed(other, at=3))).global_id == 2
    assert (await tracker.match_or_create(observed(person, at=9))).global_id > 2
    await tracker.write_pending(at(10))
    assert (await registry.detected_person_queries.get_group(2)).aggregate.total_detections == 2
