"""Run seed 004's scenarios on a real MongoDB and in simulated time."""

import pytest

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.model import Box
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.tracking.tracker import Tracker
from tests.space_limits import ensure_with_limits
from tests.tracking_samples import BEGAN, SPACE, Faces, at, observed


def new_tracker(registry: Registry) -> Tracker:
    return Tracker(registry, TrackingSettings())


@pytest.fixture
async def tracker(registry: Registry) -> Tracker:
    return new_tracker(registry)


async def restarted(registry: Registry, seconds: float) -> Tracker:
    """A tracker that knows nothing but what MongoDB holds."""
    tracker = new_tracker(registry)
    await tracker.load_recent(at(seconds))
    return tracker


async def enroll(registry: Registry, user_id: str, vector: Vector) -> None:
    template = Template(SPACE, vector.astype("<f4").tobytes())
    await registry.identities.enroll(EnrollIdentity(user_id, (template,), display_name="Ana Petrova"))


async def test_scenario_1_a_new_person(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    """A global id, and a document as the seed shows it."""
    first = await tracker.match_or_create(observed(faces.person(), camera="1", box=Box(100, 150, 100, 250)))
    assert (first.global_id, first.similarity, first.user_id) == (1, None, None)
    await tracker.write_pending(at(5))
    person = (await registry.detected_person_queries.get_group(1)).aggregate
    assert (person.avg_height_pixels, person.avg_width_pixels) == (250, 100)
    assert person.cameras_visited == ("1",)
    assert person.cameras["1"].box.corners == (100, 150, 200, 400)
    assert person.cameras["1"].last_seen == person.last_seen == person.first_seen == BEGAN
    assert (person.total_appearances, person.total_detections) == (1, 1)
    assert (person.site_id, person.face_quality, list(person.quality_scores)) == ("lobby", 0.9, [0.9])


async def test_scenario_2_the_same_person_on_another_camera(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """Five minutes later: from MongoDB into memory, with both cameras in the document."""
    person = faces.person()
    first = await tracker.match_or_create(observed(faces.of(person), camera="1"))
    await tracker.write_pending(at(5))
    await tracker.write_pending(at(31))
    assert len(tracker) == 0
    second = await tracker.match_or_create(
        observed(faces.of(person), camera="2", box=Box(120, 160, 100, 250), at=300)
    )
    assert second.global_id == first.global_id
    assert second.similarity is not None
    assert second.similarity > 0.6
    assert tracker.counters["loaded"] == 1
    await tracker.write_pending(at(305))
    known = (await registry.detected_person_queries.get_group(first.global_id)).aggregate
    assert known.cameras_visited == ("1", "2")
    assert {camera: one.last_seen for camera, one in known.cameras.items()} == {"1": BEGAN, "2": at(300)}
    assert known.total_appearances == 2


async def test_scenario_3_what_three_cameras_measure(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    for camera, height, width in (("1", 250, 100), ("2", 260, 105), ("3", 245, 98)):
        seen = observed(faces.of(person), camera=camera, box=Box(0, 0, width, height))
        await tracker.match_or_create(seen)
    await tracker.write_pending(at(5))
    known = (await registry.detected_person_queries.get_group(1)).aggregate
    assert round(known.avg_height_pixels or 0, 2) == 251.67
    assert round(known.avg_width_pixels or 0, 2) == 101.00


async def test_the_seeds_test_1_the_id_outlives_a_restart(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    people = [faces.person() for _ in range(20)]
    before = [(await tracker.match_or_create(observed(faces.of(one)))).global_id for one in people]
    await tracker.write_pending(at(2))
    tracker = await restarted(registry, 3600)
    assert len(tracker) == 0
    after = [(await tracker.match_or_create(observed(faces.of(one), at=3600))).global_id for one in people]
    assert after == before
    assert len(set(before)) == len(people)


async def test_a_kill_costs_statistics_and_no_id(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    """Only the creation was written, and the assigned id is still found."""
    person = faces.person()
    told = [await tracker.match_or_create(observed(faces.of(person), at=step)) for step in range(4)]
    assert {one.global_id for one in told} == {1}
    tracker = await restarted(registry, 4)
    again = await tracker.match_or_create(observed(faces.of(person), at=5))
    assert again.global_id == 1
    assert (await tracker.match_or_create(observed(faces.person(), at=5))).global_id > 1


async def test_a_visit_continues_after_a_restart(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    """In memory at once, with the same appearance and the same piece of the trail."""
    person = faces.person()
    await tracker.match_or_create(observed(faces.of(person)))
    await tracker.write_pending(at(1))
    tracker = await restarted(registry, 10)
    assert len(tracker) == 1
    assert tracker.match_active(observed(faces.of(person), at=10)) is not None
    await tracker.write_pending(at(11))
    known = await registry.detected_person_queries.get_group(1)
    assert (known.aggregate.total_appearances, known.aggregate.total_detections) == (1, 2)
    (stay,) = await registry.tracker_store.segments_since([1], BEGAN)
    assert (stay.since, stay.until, stay.detections) == (BEGAN, at(10), 2)


async def test_first_sight_on_two_cameras_at_once_is_one_person(tracker: Tracker, faces: Faces) -> None:
    person = faces.person()
    both = [observed(faces.of(person), camera="1"), observed(faces.of(person), camera="2")]
    assert {one.global_id for one in await tracker.assign_batch(both)} == {1}


async def test_two_strangers_in_one_picture_are_two_people(tracker: Tracker, faces: Faces) -> None:
    """Even with faces that are very like."""
    face = faces.person()
    both = [observed(face, track="a"), observed(faces.like(face, 0.9), track="b", box=Box(900, 0, 90, 90))]
    assert [one.global_id for one in await tracker.assign_batch(both)] == [1, 2]


async def test_no_global_id_is_given_twice(registry: Registry, faces: Faces) -> None:
    """Two trackers at once, restarts, and the deletion of the newest."""
    told: list[int] = []
    for _ in range(3):
        trackers = [new_tracker(registry), new_tracker(registry)]
        for tracker in trackers:
            batch = [observed(faces.person(), camera=f"cam-{number}") for number in range(40)]
            told += [one.global_id for one in await tracker.assign_batch(batch)]
        await registry.detected_person_edits.delete(told[-1], by="operator", now=at(0))
    assert len(set(told)) == len(told) == 240


async def test_half_a_minute_away_is_a_new_appearance(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    for seconds in (0, 20, 51, 60, 200):
        await tracker.match_or_create(observed(faces.of(person), at=seconds))
        await tracker.write_pending(at(seconds + 1))
    known = (await registry.detected_person_queries.get_group(1)).aggregate
    assert (known.total_appearances, known.total_detections) == (3, 5)


async def test_the_trail_has_visits_by_camera_and_time(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    walk = [("1", 0), ("1", 10), ("2", 15), ("2", 25), ("1", 40), ("1", 120)]
    for camera, seconds in walk:
        await tracker.match_or_create(observed(faces.of(person), camera=camera, at=seconds))
        await tracker.write_pending(at(seconds))
    stays = sorted(await registry.tracker_store.segments_since([1], BEGAN), key=lambda stay: stay.since)
    assert [(one.device_id, one.since, one.until, one.detections) for one in stays] == [
        ("1", at(0), at(40), 3),
        ("2", at(15), at(25), 2),
        ("1", at(120), at(120), 1),
    ]


async def test_an_assignment_has_the_user_id_of_an_enrolled_person(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    await enroll(registry, "EMP-12345", faces.of(person))
    told = await tracker.match_or_create(observed(faces.of(person)))
    assert (told.global_id, told.user_id) == (1, "EMP-12345")
    await tracker.write_pending(at(1))
    known = (await registry.detected_person_queries.get_group(1)).aggregate
    assert (known.user_id, known.linked_by) == ("EMP-12345", "face")


async def test_a_person_enrolled_later_is_linked_then(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    for step in range(12):
        assert (await tracker.match_or_create(observed(faces.of(person), at=step))).user_id is None
    await tracker.write_pending(at(12))
    await enroll(registry, "EMP-12345", faces.of(person))
    await tracker.refresh_identities()
    await tracker.write_pending(at(13))
    told = await tracker.match_or_create(observed(faces.of(person), at=14))
    assert (told.global_id, told.user_id) == (1, "EMP-12345")


async def test_a_look_alike_of_an_identity_is_not_linked(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """The direction of the mean alone would be near enough after a while."""
    person = faces.person()
    await enroll(registry, "EMP-12345", faces.of(person))
    twin = faces.like(person, 0.55 / 0.7)
    for step in range(30):
        told = await tracker.match_or_create(observed(faces.of(twin), at=step))
        assert (told.global_id, told.user_id) == (1, None)
        await tracker.write_pending(at(step))


async def test_a_face_that_only_the_enrollment_knows_is_the_same_person(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """A new pose that only the enrollment has finds the same detected person."""
    person = faces.person()
    pose = faces.like(person, 0.4)
    await enroll(registry, "EMP-12345", person)
    await enroll(registry, "EMP-12345", pose)
    first = await tracker.match_or_create(observed(person))
    await tracker.write_pending(at(31))
    again = await tracker.match_or_create(observed(faces.like(pose, 0.9), at=600))
    assert (again.global_id, again.user_id) == (first.global_id, "EMP-12345")


async def test_a_link_is_hidden_while_its_identity_is_deleted(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    await enroll(registry, "EMP-12345", faces.of(person))
    await tracker.match_or_create(observed(faces.of(person)))

    async def told(seconds: float) -> str | None:
        await tracker.refresh_identities()
        await tracker.write_pending(at(seconds))
        return (await tracker.match_or_create(observed(faces.of(person), at=seconds))).user_id

    assert await told(1) == "EMP-12345"
    await registry.identities.delete("EMP-12345")
    assert await told(2) is None
    assert (await registry.detected_person_queries.get_group(1)).aggregate.user_id == "EMP-12345"
    await registry.identities.restore("EMP-12345")
    assert await told(3) == "EMP-12345"
    await enroll(registry, "EMP-777", faces.person())
    await registry.identity_merges.merge("EMP-12345", "EMP-777")
    assert await told(4) == "EMP-777"


async def test_a_rejected_link_does_not_come_back(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    person = faces.person()
    await enroll(registry, "EMP-12345", faces.of(person))
    await tracker.match_or_create(observed(faces.of(person)))
    await tracker.write_pending(at(1))
    await registry.detected_person_edits.unlink(1, by="operator", now=at(2))
    await tracker.reload([1], at(2))
    for step in range(3, 12):
        told = await tracker.match_or_create(observed(faces.of(person), at=step))
        assert (told.global_id, told.user_id) == (1, None)
        await tracker.write_pending(at(step))


async def test_merged_persons_are_one_until_the_unmerge(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    one, other = faces.person(), faces.person()
    await tracker.assign_batch([observed(faces.of(one), camera="1"), observed(faces.of(other), camera="2")])
    await registry.detected_person_edits.merge(2, 1, by="operator", now=at(1))
    await tracker.reload([1, 2], at(1))
    assert (await tracker.match_or_create(observed(faces.of(other), at=2))).global_id == 1
    assert (await tracker.match_or_create(observed(faces.of(one), at=3))).global_id == 1
    await tracker.write_pending(at(4))
    known = (await registry.detected_person_queries.get_group(2)).aggregate
    assert (known.global_id, known.total_detections, known.cameras_visited) == (1, 4, ("1", "2", "cam-001"))
    await registry.detected_person_edits.unmerge(2, by="operator", now=at(5))
    await tracker.reload_all(at(5))
    assert (await tracker.match_or_create(observed(faces.of(other), at=6))).global_id == 2
    assert (await tracker.match_or_create(observed(faces.of(one), at=6))).global_id == 1


async def test_a_deleted_person_is_new_again(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    """The person in memory brings no document back."""
    person = faces.person()
    await tracker.match_or_create(observed(faces.of(person)))
    await registry.detected_person_edits.delete(1, by="operator", now=at(1))
    await tracker.write_pending(at(1))
    assert len(tracker) == 0
    told = await tracker.match_or_create(observed(faces.of(person), at=2))
    assert told.global_id == 2
    await tracker.write_pending(at(3))
    assert await registry.mongo.db.persons.distinct("_id") == [2]
    assert await registry.mongo.db.person_faces.distinct("person") == [2]
    assert await registry.mongo.db.trails.distinct("person") == [2]


async def test_an_unstored_id_is_not_published(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    """The next sighting stores the person under the id not yet published."""
    person = faces.person()
    await registry.mongo.db.command({"collMod": "persons", "validator": {"never": {"$exists": True}}})
    with pytest.raises(Exception, match="validation"):
        await tracker.match_or_create(observed(faces.of(person)))
    assert tracker.match_active(observed(faces.of(person))) is None
    await registry.mongo.db.command({"collMod": "persons", "validator": {}})
    told = await tracker.match_or_create(observed(faces.of(person), at=1))
    assert told.global_id == 1
    assert tracker.match_active(observed(faces.of(person), at=2)) is not None


async def test_what_could_not_be_written_is_written_later(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    person = faces.person()
    for step in range(3):
        await tracker.match_or_create(observed(faces.of(person), at=step))
    await registry.mongo.db.command({"collMod": "persons", "validator": {"never": {"$exists": True}}})
    with pytest.raises(Exception, match="validation"):
        await tracker.write_pending(at(3))
    await tracker.match_or_create(observed(faces.of(person), at=4))
    await registry.mongo.db.command({"collMod": "persons", "validator": {}})
    await tracker.write_pending(at(5))
    assert (await registry.detected_person_queries.get_group(1)).aggregate.total_detections == 4
    (stay,) = await registry.tracker_store.segments_since([1], BEGAN)
    assert (stay.until, stay.detections) == (at(4), 4)


async def test_centroids_improve_and_are_written(registry: Registry, tracker: Tracker, faces: Faces) -> None:
    """By the first six good faces of a stay, and by one of each further stay."""
    person = faces.person()
    for step in range(20):
        await tracker.match_or_create(observed(faces.of(person), at=step))
    await tracker.write_pending(at(20))
    (face,) = (await registry.tracker_store.centroids_of([1]))[1]
    assert face.weight == pytest.approx(6 * 0.9)
    assert float(face.unit @ person) > 0.93
    for step in range(4):
        await tracker.match_or_create(observed(faces.of(person), at=30 + step, camera=f"cam-{step}"))
    await tracker.write_pending(at(40))
    (face,) = (await registry.tracker_store.centroids_of([1]))[1]
    assert face.weight > 6 * 0.9


async def test_an_identity_joins_its_persons_of_two_spaces(
    registry: Registry, tracker: Tracker, faces: Faces
) -> None:
    """While a site moves to another model, both see the same person."""
    other = "face:newer-512"
    person, in_other = faces.person(), faces.person()
    for space, vector in ((SPACE, person), (other, in_other)):
        template = Template(space, vector.astype("<f4").tobytes())
        await ensure_with_limits(registry, EmbeddingSpace(space, 512))
        await registry.identities.enroll(EnrollIdentity("EMP-12345", (template,)))
    await tracker.match_or_create(observed(faces.like(person, 0.9)))
    told = await tracker.match_or_create(observed(faces.like(in_other, 0.9), at=2, camera="2", space=other))
    assert (told.global_id, told.user_id) == (1, "EMP-12345")
