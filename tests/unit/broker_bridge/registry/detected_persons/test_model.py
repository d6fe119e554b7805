"""What was seen of a person, counted as seed 004 counts it."""

from datetime import timedelta

import pytest

from broker_bridge.registry.detected_persons.model import Box, DetectedPerson, aggregate
from tests.tracking_samples import BEGAN, Faces, observed

TIMEOUT = timedelta(seconds=30)
FACE = Faces().person()


def seen_at(person: DetectedPerson, camera: str, height: float, width: float, at: float = 0) -> None:
    person.count_sighting(observed(FACE, camera=camera, box=Box(10, 20, width, height), at=at), TIMEOUT)


@pytest.fixture
def person() -> DetectedPerson:
    return DetectedPerson.create(42, observed(FACE))


def test_scenario_1_of_the_seed(person: DetectedPerson) -> None:
    """Camera 1 sees a box with the corners [100, 150, 200, 400]."""
    person.count_sighting(observed(FACE, camera="1", box=Box(100, 150, 100, 250)), TIMEOUT)
    assert (person.avg_height_pixels, person.avg_width_pixels) == (250, 100)
    assert person.cameras_visited == ("1",)
    assert person.cameras["1"].box.corners == (100, 150, 200, 400)
    assert (person.total_appearances, person.total_detections) == (1, 1)


def test_scenario_3_of_the_seed(person: DetectedPerson) -> None:
    """Three cameras: 251.67 and 101.00."""
    for camera, height, width in (("1", 250, 100), ("2", 260, 105), ("3", 245, 98)):
        seen_at(person, camera, height, width)
    assert round(person.avg_height_pixels or 0, 2) == 251.67
    assert round(person.avg_width_pixels or 0, 2) == 101.00


def test_each_camera_counts_once_however_much_it_sees(person: DetectedPerson) -> None:
    for _ in range(9):
        seen_at(person, "1", 200, 80)
    seen_at(person, "2", 300, 120)
    assert person.avg_height_pixels == 250


def test_only_calibrated_cameras_tell_metres(person: DetectedPerson) -> None:
    seen_at(person, "1", 350, 100)
    seen_at(person, "2", 700, 200)
    seen_at(person, "3", 999, 200)
    assert person.avg_height_meters({"1": 0.005, "2": 0.0026}) == pytest.approx((1.75 + 1.82) / 2)
    assert person.avg_height_meters({}) is None


def test_half_a_minute_away_makes_a_new_appearance(person: DetectedPerson) -> None:
    for at in (0, 30, 60, 90.1, 100):
        seen_at(person, "1", 250, 100, at)
    assert person.total_appearances == 2
    assert person.is_active(BEGAN + timedelta(seconds=130), TIMEOUT)
    assert not person.is_active(BEGAN + timedelta(seconds=130.1), TIMEOUT)


def test_a_late_observation_does_not_move_last_seen_back(person: DetectedPerson) -> None:
    seen_at(person, "1", 250, 100, 10)
    seen_at(person, "2", 250, 100, 9)
    assert person.last_seen == BEGAN + timedelta(seconds=10)


def test_the_newest_qualities_and_the_best_are_kept(person: DetectedPerson) -> None:
    for step in range(30):
        person.count_sighting(observed(FACE, quality=step / 30), TIMEOUT)
    person.count_sighting(observed(FACE, quality=None), TIMEOUT)
    assert len(person.quality_scores) == 20
    assert person.quality_scores[-1] == person.face_quality == pytest.approx(29 / 30)
    assert person.total_detections == 31


def test_together_adds_up_what_cameras_saw(person: DetectedPerson) -> None:
    """As if all had been seen of one person."""
    second = DetectedPerson.create(51, observed(FACE, at=100, site="garage"))
    for at, height in ((0, 240), (1, 260)):
        seen_at(person, "1", height, 100, at)
    second.count_sighting(observed(FACE, camera="2", at=100, site="garage", quality=0.95), TIMEOUT)
    second.count_sighting(observed(FACE, camera="1", box=Box(1, 1, 100, 280), at=101, site="lobby"), TIMEOUT)
    second.assigned_name, second.user_id = "Gate guest", "EMP-12345"
    both = aggregate(person, [second])
    assert (both.global_id, both.assigned_name, both.user_id) == (42, "Gate guest", "EMP-12345")
    assert both.cameras_visited == ("1", "2")
    assert both.cameras["1"].height == 260
    assert both.cameras["1"].box == Box(1, 1, 100, 280)
    assert (both.total_appearances, both.total_detections) == (2, 4)
    assert (both.first_seen, both.last_seen) == (BEGAN, BEGAN + timedelta(seconds=101))
    assert both.face_quality == 0.95
    assert person.total_detections == 2


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        (Box(0, 0, 10, 10), Box(0, 0, 10, 10), 1.0),
        (Box(0, 0, 10, 10), Box(5, 0, 10, 10), 1 / 3),
        (Box(0, 0, 10, 10), Box(10, 0, 10, 10), 0.0),
        (Box(0, 0, 10, 10), Box(50, 50, 1, 1), 0.0),
        (Box(0, 0, 10, 10), Box(2, 2, 5, 5), 0.25),
    ],
)
def test_overlap_is_intersection_over_union(first: Box, second: Box, overlap: float) -> None:
    assert first.overlap(second) == pytest.approx(overlap)
    assert second.overlap(first) == pytest.approx(overlap)
