"""The tracker: ids that last, never come again, and do not pile up."""

import numpy as np
import pytest

from device.vision.tracker import IouTracker, intersection_over_union


def boxes(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def test_a_moving_face_keeps_its_id():
    """Sixty small steps across the picture are one track."""
    tracker = IouTracker()
    ids = {tracker.update(boxes([step * 10, 50, 100, 100]), step / 15)[0] for step in range(60)}
    assert ids == {"face_0"}


def test_two_faces_keep_their_ids_when_the_detector_swaps_their_order():
    """Rows are matched by place, not by position in the list."""
    tracker = IouTracker()
    assert tracker.update(boxes([0, 0, 100, 100], [300, 0, 100, 100]), 0.0) == ["face_0", "face_1"]
    assert tracker.update(boxes([305, 0, 100, 100], [5, 0, 100, 100]), 0.1) == ["face_1", "face_0"]


def test_the_larger_overlap_wins():
    """A newcomer between two frames does not take the track of the face that moved less."""
    tracker = IouTracker()
    tracker.update(boxes([100, 0, 100, 100]), 0.0)
    assert tracker.update(boxes([140, 0, 100, 100], [105, 0, 100, 100]), 0.1) == ["face_1", "face_0"]


def test_a_face_gone_longer_than_the_age_gets_a_new_id():
    """A second is bridged, more is not, and the old id never comes again."""
    tracker = IouTracker(max_age_seconds=1.0)
    here = boxes([0, 0, 100, 100])
    assert tracker.update(here, 0.0) == ["face_0"]
    assert tracker.update(here, 1.0) == ["face_0"]
    assert tracker.update(boxes(), 1.5) == []
    assert tracker.update(here, 2.1) == ["face_1"]


def test_memory_stays_bounded():
    """Ten thousand faces that come once are forgotten after their second."""
    tracker = IouTracker()
    ids = set()
    for step in range(10_000):
        ids.update(tracker.update(boxes([(step % 7) * 200, 0, 50, 50]), float(step)))
        assert len(tracker) <= 2
    assert len(ids) == 10_000


def test_empty_boxes_overlap_nothing():
    """No division by zero."""
    assert intersection_over_union(boxes([5, 5, 0, 0]), boxes([5, 5, 0, 0])).tolist() == [[0.0]]
    assert intersection_over_union(boxes([0, 0, 10, 10]), boxes([0, 5, 10, 10]))[0, 0] == pytest.approx(1 / 3)
