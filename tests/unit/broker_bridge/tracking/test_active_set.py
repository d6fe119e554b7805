"""Match faces against the active persons: by continuity, face or position."""

import numpy as np
import pytest

from broker_bridge.contract.embeddings import Vector
from broker_bridge.contract.spaces import SpaceLimits
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import Box, DetectedPerson, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.tracking.active_person import ActivePerson
from broker_bridge.tracking.active_set import ActiveSet
from tests.space_limits import LIMITS, tracked_limits
from tests.tracking_samples import SPACE, Faces, observed

LEFT, RIGHT = Box(100, 100, 80, 100), Box(900, 100, 80, 100)


@pytest.fixture
def faces() -> Faces:
    return Faces()


class Scene:
    """Active persons for one test."""

    def __init__(self, settings: TrackingSettings | None = None, limits: SpaceLimits = LIMITS) -> None:
        settings = settings or TrackingSettings()
        self.active = ActiveSet(settings, tracked_limits(SPACE, limits, settings))

    def add(self, global_id: int, *known: Vector) -> ActivePerson:
        face = FaceCentroid.from_vector(SPACE, known[0], 0.9)
        for vector in known[1:]:
            face.learn(vector, 0.9)
        active = ActivePerson(DetectedPerson.create(global_id, observed(known[0])), {SPACE: face})
        self.active.add(active)
        return active

    def assign(self, seen: ObservedFace) -> tuple[int, str] | None:
        """Return global id and rule; the sighting is recorded."""
        match = self.active.match(seen)
        if match is None:
            return None
        self.active.record_sighting(match, seen)
        return match.active.global_id, match.by


def test_a_guess_elsewhere_in_the_picture_does_not_support_the_next(faces: Faces) -> None:
    """A sure position on one track does not support a guess on another."""
    scene, face = Scene(), faces.person()
    scene.add(41, face)
    assert scene.assign(observed(faces.like(face, 0.9), at=0, track="a", box=LEFT)) == (41, "face")
    assert scene.assign(observed(faces.like(face, 0.62), at=1, track="b", box=RIGHT)) == (41, "face")
    assert scene.assign(observed(faces.like(face, 0.5), at=2, track="b", box=RIGHT)) is None


def test_an_empty_set_matches_nothing(faces: Faces) -> None:
    assert Scene().assign(observed(faces.person())) is None


def test_a_face_at_the_threshold_is_that_persons_and_one_below_it_is_not(faces: Faces) -> None:
    """Seed 004: face_similarity_threshold 0.6."""
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(faces.like(face, 0.601))) == (42, "face")
    scene = Scene()
    scene.add(42, face)
    assert scene.assign(observed(faces.like(face, 0.599))) is None


def test_a_stranger_does_not_match(faces: Faces) -> None:
    scene = Scene()
    for global_id in range(1, 200):
        scene.add(global_id, faces.person())
    assert all(scene.assign(observed(faces.person())) is None for _ in range(100))


def test_of_many_the_right_one_is_found(faces: Faces) -> None:
    scene = Scene()
    people = {global_id: faces.person() for global_id in range(1, 300)}
    for global_id, person in people.items():
        scene.add(global_id, *(faces.of(person) for _ in range(3)))
    for global_id, person in people.items():
        assert scene.assign(observed(faces.of(person))) == (global_id, "face")


def test_a_look_alike_comes_no_nearer_to_a_well_known_person(faces: Faces) -> None:
    """Two persons of cosine 0.55: the direction of a mean would confuse them."""
    person = faces.person()
    twin = faces.like(person, 0.55 / 0.7)
    known = [faces.of(person) for _ in range(50)]
    scene = Scene()
    active = scene.add(42, *known)
    seen = [faces.of(twin) for _ in range(200)]
    assert max(float(active.centroids[SPACE].unit @ face) for face in seen) > 0.6
    assert all(scene.active.match(observed(face)) is None for face in seen)
    assert all(scene.active.match(observed(faces.of(person))) for _ in range(200))


def test_of_two_similar_persons_the_nearer_matches_and_neither_learns(faces: Faces) -> None:
    face = faces.person()
    scene = Scene()
    near, other = scene.add(1, faces.like(face, 0.72)), scene.add(2, faces.like(face, 0.70))
    before = near.centroids[SPACE].weight, other.centroids[SPACE].weight
    match = scene.active.match(observed(face))
    assert match is not None
    assert not match.is_sure
    assert scene.assign(observed(face)) == (1, "face")
    assert (near.centroids[SPACE].weight, other.centroids[SPACE].weight) == before


def test_of_two_similar_persons_the_one_just_there_matches(faces: Faces) -> None:
    face = faces.person()
    scene = Scene()
    scene.add(1, faces.like(face, 0.72))
    second = faces.like(face, 0.70)
    scene.add(2, second)
    assert scene.assign(observed(second, box=LEFT, at=0)) == (2, "face")
    assert scene.assign(observed(face, box=LEFT, at=1)) == (2, "face")
    assert scene.assign(observed(face, box=LEFT, at=1, camera="cam-002")) == (1, "face")


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ({"box": Box(110, 105, 80, 100), "at": 1.0}, True),
        ({"box": RIGHT, "at": 1.0, "track": "face_9"}, False),
        ({"box": RIGHT, "at": 1.0}, True),
        ({"box": LEFT, "at": 1.9, "track": "face_9"}, True),
        ({"box": LEFT, "at": 2.1}, False),
        ({"box": LEFT, "at": 1.0, "camera": "cam-002"}, False),
    ],
    ids=["beside", "elsewhere", "same track", "two seconds", "too late", "another camera"],
)
def test_a_weak_face_matches_the_person_there_a_moment_ago(
    faces: Faces, where: dict[str, object], matches: bool
) -> None:
    """By overlap or track, on the same camera, within two seconds."""
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(face, box=LEFT)) == (42, "face")
    seen = observed(faces.like(face, 0.5), **where)  # type: ignore[arg-type]
    assert scene.assign(seen) == ((42, "position") if matches else None)


def test_a_dissimilar_face_does_not_match_by_position(faces: Faces) -> None:
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    scene.assign(observed(face, box=LEFT))
    assert scene.assign(observed(faces.like(face, 0.44), box=LEFT, at=1)) is None


def test_a_guess_does_not_support_the_next(faces: Faces) -> None:
    """A face just above the threshold may be a look-alike's, and supports no next."""
    scene, face = Scene(), faces.person()
    active = scene.add(42, face)
    weight = active.centroids[SPACE].weight
    assert scene.assign(observed(faces.like(face, 0.62), box=LEFT)) == (42, "face")
    assert active.centroids[SPACE].weight == weight
    assert scene.assign(observed(faces.like(face, 0.55), box=LEFT, at=1)) is None
    assert scene.assign(observed(faces.like(face, 0.66), box=LEFT, at=2)) == (42, "face")
    assert active.centroids[SPACE].weight > weight
    assert scene.assign(observed(faces.like(face, 0.57), box=LEFT, at=3)) == (42, "position")
    assert scene.assign(observed(faces.like(face, 0.57), box=LEFT, at=4)) == (42, "position")


def test_a_match_by_position_moves_no_centroid(faces: Faces) -> None:
    """Otherwise a new face at a person's position would become that person."""
    scene, face = Scene(), faces.person()
    active = scene.add(42, face)
    scene.assign(observed(face, box=LEFT))
    mean = active.centroids[SPACE].mean.copy()
    assert scene.assign(observed(faces.like(face, 0.5), box=LEFT, at=1)) == (42, "position")
    assert np.array_equal(active.centroids[SPACE].mean, mean)


def test_a_face_of_low_quality_moves_no_centroid(faces: Faces) -> None:
    scene, face = Scene(), faces.person()
    active = scene.add(42, face)
    weight = active.centroids[SPACE].weight
    assert scene.assign(observed(faces.like(face, 0.8), quality=0.1)) == (42, "face")
    assert active.centroids[SPACE].weight == weight
    assert scene.assign(observed(faces.like(face, 0.8), quality=0.8)) == (42, "face")
    assert active.centroids[SPACE].weight > weight


def test_a_person_is_once_in_a_picture(faces: Faces) -> None:
    """Not even with a face that is very like."""
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(face, box=LEFT, track="face_0")) == (42, "face")
    twin = faces.like(face, 0.9)
    assert scene.assign(observed(twin, box=RIGHT, track="face_1", at=0.05)) is None
    assert scene.assign(observed(twin, box=RIGHT, track="face_1", at=0.05, camera="cam-002")) == (42, "face")


def test_camera_clocks_are_not_compared(faces: Faces) -> None:
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(face, box=LEFT, at=0, captured=-60)) == (42, "face")
    assert scene.assign(observed(face, box=RIGHT, track="face_7", at=0.01, captured=60, camera="cam-002"))
    near = faces.like(face, 0.5)
    assert scene.assign(observed(near, box=LEFT, at=1, captured=-59)) == (42, "position")


def test_a_late_picture_matches_by_position(faces: Faces) -> None:
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(face, box=LEFT, at=0.0, captured=1.0)) == (42, "face")
    assert scene.assign(observed(faces.like(face, 0.5), box=LEFT, at=0.2, captured=0.0)) == (42, "position")


def test_removed_persons_match_no_more(faces: Faces) -> None:
    scene = Scene()
    people = {global_id: faces.person() for global_id in range(1, 150)}
    for global_id, person in people.items():
        scene.add(global_id, person)
    gone = [1, 2, 64, 65, 100, 149]
    scene.active.remove(gone)
    for global_id, person in people.items():
        assigned = scene.assign(observed(person, camera=f"cam-{global_id}"))
        assert assigned == (None if global_id in gone else (global_id, "face"))
    assert len(scene.active) == len(people) - len(gone)


def test_a_merge_group_matches_by_all_its_centroids(faces: Faces) -> None:
    scene, face, other = Scene(), faces.person(), faces.person()
    active = scene.add(42, face)
    scene.active.remove([42])
    active.merged_centroids = (FaceCentroid.from_vector(SPACE, other, 0.9),)
    scene.active.add(active)
    assert scene.assign(observed(face)) == (42, "face")
    assert scene.assign(observed(other, at=9)) == (42, "face")
    assert scene.assign(observed(faces.like(face, 0.9), at=18)) == (42, "face")
    assert float(active.centroids[SPACE].unit @ other) < 0.2


def test_spaces_are_not_compared(faces: Faces) -> None:
    scene, face = Scene(), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(face, space="face:other-512")) is None


def test_a_space_of_another_dimension_is_another(faces: Faces) -> None:
    scene, face = Scene(), faces.person()
    scene.add(41, face[:8])
    assert scene.assign(observed(face)) is None
    scene.add(42, face)
    assert scene.assign(observed(face, at=1)) == (42, "face")


def test_each_space_has_its_own_threshold(faces: Faces) -> None:
    scene, face = Scene(limits=LIMITS.model_copy(update={"tracked_similarity": 0.8})), faces.person()
    scene.add(42, face)
    assert scene.assign(observed(faces.like(face, 0.75))) is None
