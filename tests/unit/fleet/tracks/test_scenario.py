"""A course is generated with its look-alikes, walks and delays."""

from collections import defaultdict
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from fleet.tracks.command import make_course
from fleet.tracks.course import FRAME_SIZE, STANDARD, Course, StandingCrowd
from fleet.tracks.faces import SimulatedFaces
from fleet.tracks.scenario import SimulatedSighting, play_course

SMALL = Course(cameras=4, walkers=20, seconds=300.0, look_alikes=0.2)
TROUBLED = replace(
    SMALL,
    look_alikes_meet=True,
    crowds=(StandingCrowd(100.0, 2, 8),),
    break_share=0.05,
    overlap=0.3,
    clock_skew=60.0,
    delay=0.4,
)


def played(course: Course, seed: int = 1) -> list[SimulatedSighting]:
    return list(play_course(course, np.random.default_rng(seed)))


def test_a_seed_gives_one_course() -> None:
    """Every observation and vector repeats; another seed gives another course."""

    def observations(seed: int) -> list[tuple[object, ...]]:
        return [
            (sighting.arrives, sighting.walker, sighting.track_id, sighting.vector.tobytes())
            for sighting in played(TROUBLED, seed)
        ]

    assert observations(3) == observations(3)
    assert observations(3) != observations(4)


def test_a_course_is_generated_on_demand() -> None:
    """The first observations of the standard course need no others."""
    first = list(islice(play_course(STANDARD, np.random.default_rng(1)), 100))
    assert len(first) == 100
    assert first[-1].arrives < 60


def test_observations_are_sorted_by_arrival_and_not_by_capture() -> None:
    """Delays of some 100 ms reorder the observations of a camera."""
    sightings = played(TROUBLED)
    assert all(a.arrives <= b.arrives for a, b in pairwise(sightings))
    assert all(0 <= sighting.arrives - sighting.seen <= TROUBLED.delay for sighting in sightings)
    by_camera = defaultdict(list)
    for sighting in sightings:
        by_camera[sighting.camera].append(sighting.captured)
    assert any(captured != sorted(captured) for captured in by_camera.values())


def test_observations_have_the_cosines_of_a_face_network() -> None:
    """0.6 to 0.8 for one walker, about 0.55 for look-alikes, 0 +- 0.05 for others."""
    faces = SimulatedFaces(SMALL, np.random.default_rng(2))
    looks = np.stack([[faces.sample(walker)[0] for _ in range(40)] for walker in range(6)])
    np.testing.assert_allclose(np.linalg.norm(looks, axis=2), 1.0, atol=1e-5)
    own = (looks[0] @ looks[0].T)[np.triu_indices(40, 1)]
    assert own.mean() == pytest.approx(0.7, abs=0.02)
    assert 0.54 < own.min() < own.max() < 0.86
    assert (looks[0] @ looks[1].T).mean() == pytest.approx(0.55, abs=0.02)
    strangers = np.concatenate([(looks[0] @ looks[n].T).ravel() for n in range(2, 6)])
    assert abs(strangers.mean()) < 0.05
    assert strangers.std() < 0.07


def test_quality_follows_the_cosine_to_the_centroid() -> None:
    """The two values correlate."""
    faces = SimulatedFaces(SMALL, np.random.default_rng(2))
    looks = [faces.sample(3) for _ in range(300)]
    cosines = [float(vector @ faces.centroids[3]) for vector, _ in looks]
    qualities = [quality for _, quality in looks]
    assert np.corrcoef(cosines, qualities)[0, 1] > 0.8
    assert min(qualities) >= 0
    assert max(qualities) <= 1


def test_boxes_move_smoothly_inside_the_frame() -> None:
    """No box jumps between two seconds or leaves the picture."""
    width, height = FRAME_SIZE
    last: dict[tuple[int, str], SimulatedSighting] = {}
    for sighting in played(SMALL):
        x, y, w, h = sighting.box
        assert -0.01 <= x <= width - w + 0.01
        assert -0.01 <= y <= height - h + 0.01
        before = last.get((sighting.camera, sighting.track_id))
        if before is not None:
            assert abs(x + w / 2 - before.box[0] - before.box[2] / 2) <= 121 * (sighting.seen - before.seen)
        last[sighting.camera, sighting.track_id] = sighting


def test_a_track_shows_one_walker_on_one_camera() -> None:
    """A new visit, and a broken track, have a new track id."""
    walkers, tracks = defaultdict(set), defaultdict(set)
    for sighting in played(TROUBLED):
        walkers[sighting.camera, sighting.track_id].add(sighting.walker)
        tracks[sighting.walker].add((sighting.camera, sighting.track_id))
    assert all(len(those) == 1 for those in walkers.values())
    whole, broken = (len({t for sighting in played(c) for t in [(sighting.camera, sighting.track_id)]})
                     for c in (SMALL, replace(SMALL, break_share=0.2)))  # fmt: skip
    assert broken > 1.5 * whole


def test_a_walker_is_on_two_cameras_only_where_views_overlap() -> None:
    """Without overlap a walker is on one camera at a time."""
    for course in (SMALL, TROUBLED):
        at: dict[tuple[int, float], set[int]] = defaultdict(set)
        for sighting in played(course):
            at[sighting.walker, sighting.seen].add(sighting.camera)
        places = {frozenset(cameras) for cameras in at.values()}
        shared = {frozenset({0, 1}), frozenset({2, 3})} if course.overlap else set()
        assert {cameras for cameras in places if len(cameras) > 1} == shared


def test_a_crowd_stands_in_one_picture() -> None:
    """Its camera observes the walkers of the crowd at the same time."""
    at: dict[float, set[int]] = defaultdict(set)
    for sighting in played(TROUBLED):
        if sighting.camera == 2:
            at[sighting.seen].add(sighting.walker)
    seen, walkers = max(at.items(), key=lambda item: len(item[1]))
    assert len(walkers) >= 7
    assert 100 <= seen <= 130


def test_look_alikes_meet_in_one_picture() -> None:
    """A camera observes both walkers of each pair at one time."""
    pictures: dict[tuple[int, float], set[int]] = defaultdict(set)
    for sighting in played(TROUBLED):
        pictures[sighting.camera, sighting.captured].add(sighting.walker)
    for pair in range(TROUBLED.look_alike_pairs):
        assert any({2 * pair, 2 * pair + 1} <= walkers for walkers in pictures.values())


def test_a_camera_s_clock_offset_is_constant() -> None:
    """The offsets of two cameras differ."""
    offsets = defaultdict(set)
    for sighting in played(TROUBLED):
        offsets[sighting.camera].add(round(sighting.captured - sighting.seen, 3))
    assert all(len(those) == 1 and abs(next(iter(those))) <= 60 for those in offsets.values())
    assert len({next(iter(those)) for those in offsets.values()}) == 4


def test_loss_drops_its_share_and_changes_nothing_else() -> None:
    """The rest is a subset of the course without loss, about 10 percent smaller."""
    whole = {(sighting.walker, sighting.camera, sighting.seen) for sighting in played(SMALL)}
    left = {
        (sighting.walker, sighting.camera, sighting.seen) for sighting in played(replace(SMALL, loss=0.1))
    }
    assert left < whole
    assert len(left) == pytest.approx(0.9 * len(whole), rel=0.05)


def test_walkers_follow_the_transitions() -> None:
    """A ring of cameras is walked in its order."""
    ring = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    cameras: dict[int, list[int]] = defaultdict(list)
    for sighting in played(Course(cameras=3, walkers=5, seconds=400.0, transitions=ring)):
        cameras[sighting.walker].append(sighting.camera)
    steps = {(a, b) for walked in cameras.values() for a, b in pairwise(walked) if a != b}
    assert steps == {(0, 1), (1, 2), (2, 0)}


@pytest.mark.parametrize("seed", range(10))
def test_the_shortest_course_of_the_command_is_possible(seed: int) -> None:
    """All walkers have a look-alike, stand in the crowd and still meet."""
    course = make_course(
        cameras=3, walkers=20, minutes=0.1, look_alikes=1.0, crowd=20, overlap=0.15, breaks=0.01, loss=0.02,
        delay_ms=300, clock_skew=60,
    )  # fmt: skip
    assert {sighting.walker for sighting in played(course, seed)} >= set(range(10))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cameras": 0},
        {"loss": 1.5},
        {"dwell": (5.0, 1.0)},
        {"clock_skew": -1.0},
        {"crowds": (StandingCrowd(1.0, 4, 3),)},
        {"transitions": ((1.0,),)},
    ],
)
def test_an_impossible_course_is_refused(wrong: dict[str, object]) -> None:
    """The error is a sentence."""
    with pytest.raises(ValueError, match=" "):
        replace(SMALL, **wrong)  # type: ignore[arg-type]
