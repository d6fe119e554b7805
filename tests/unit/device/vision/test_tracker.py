"""The tracker: ids survive crossings and gaps, are never reused, and are bounded."""

import numpy as np
import pytest

from device.vision.tracker import FaceTracker

FACE = 80.0
"""Pixels of a face's width; about 16 cm, so a walking person moves 500 pixels a second."""


def boxes(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


class Face:
    """A face with its centre at `position(t)` from `comes` until `goes`, in seconds."""

    def __init__(self, position, comes=0.0, goes=np.inf, grows=0.0):
        self.position, self.comes, self.goes, self.grows = position, comes, goes, grows

    def box(self, time, random):
        size = FACE * np.exp(self.grows * time)
        x, y = np.array(self.position(time)) + random.normal(0, 0.03 * size, 2)
        side = size * (1 + random.normal(0, 0.03))
        return [x - side / 2, y - side / 2, side, side]


def walk(x, speed, y=200.0):
    return lambda time: (x + speed * time, y)


def tracked(faces, *, fps=15.0, seconds=3.0, seed=0, missed=0.0, dropped=0.0, hides=False):
    """Return the ids of each face in order.

    Boxes jitter by 3 % and come in any order; `missed` faces are not detected, `dropped` frames not seen at
    all; with `hides` the first face covers the second.
    """
    random = np.random.default_rng(seed)
    tracker = FaceTracker()
    ids = [[] for _ in faces]
    for frame in range(int(fps * seconds)):
        time = frame / fps
        there = [number for number, face in enumerate(faces) if face.comes <= time < face.goes]
        if hides and len(there) == 2:
            apart = abs(faces[0].position(time)[0] - faces[1].position(time)[0])
            there = there[:1] if apart < 0.5 * FACE else there
        there = [number for number in random.permutation(there) if random.random() >= missed]
        if frame and random.random() < dropped:
            continue
        found = boxes(*(faces[number].box(time, random) for number in there))
        for number, track in zip(there, tracker.update(found, time), strict=True):
            ids[number].append(track)
    return ids


def test_two_faces_keep_their_ids_when_the_detector_swaps_their_order():
    """Rows are matched by position in the image, not in the list."""
    tracker = FaceTracker()
    assert tracker.update(boxes([0, 0, 100, 100], [300, 0, 100, 100]), 0.0) == ["face_0", "face_1"]
    assert tracker.update(boxes([305, 0, 100, 100], [5, 0, 100, 100]), 0.1) == ["face_1", "face_0"]


def test_the_nearer_face_keeps_the_track():
    """A new face between two frames does not take the track of a face that moved less."""
    tracker = FaceTracker()
    tracker.update(boxes([100, 0, 100, 100]), 0.0)
    assert tracker.update(boxes([140, 0, 100, 100], [105, 0, 100, 100]), 0.1) == ["face_1", "face_0"]


@pytest.mark.parametrize("fps", [5, 8, 10, 15, 30])
@pytest.mark.parametrize("seed", range(5))
def test_a_passing_face_is_one_track(fps, seed):
    """At a metre a second and five frames a second boxes of one face do not overlap."""
    (ids,) = tracked([Face(walk(0, 480))], fps=fps, seconds=1.4, seed=seed)
    assert set(ids) == {"face_0"}


@pytest.mark.parametrize(("hides", "unsure"), [(False, 6), (True, 12)], ids=["both seen", "one hidden"])
def test_crossing_faces_keep_their_ids(hides, unsure):
    """A hundred pairs pass each other, and few are confused while they overlap."""
    mixed = 0
    for fps in (5, 10, 15, 30):
        for seed in range(25):
            random = np.random.default_rng([seed, fps])
            left, right = random.uniform(150, 260, 2)
            pair = [Face(walk(0, left)), Face(walk(640, -right, y=200 + random.uniform(-15, 15)))]
            ids = tracked(pair, fps=fps, seed=seed, hides=hides)
            assert [each[-1] for each in ids] == [each[0] for each in ids]
            mixed += any(len(set(each)) > 1 for each in ids)
    assert mixed <= unsure


@pytest.mark.parametrize("seed", range(10))
def test_missed_detections_are_bridged(seed):
    """Three of ten faces, or half of all frames are missed: two faces stay two tracks."""
    pair = [Face(walk(100, 60)), Face(walk(400, -20, y=320))]
    for course in ({"missed": 0.3}, {"dropped": 0.5}):
        ids = tracked(pair, seconds=5, seed=seed, **course)
        assert [len(set(each)) for each in ids] == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_a_face_that_turns_back_keeps_its_id(seed):
    """Velocities are remembered for a moment only."""
    to_and_fro = Face(lambda time: (320 + 200 * np.sin(1.6 * time), 200))
    (ids,) = tracked([to_and_fro], seconds=6, seed=seed, missed=0.1)
    assert set(ids) == {"face_0"}


def test_an_approaching_face_keeps_its_id():
    """The face doubles its size in under two seconds."""
    (ids,) = tracked([Face(walk(300, 20), grows=0.4)])
    assert set(ids) == {"face_0"}


@pytest.mark.parametrize("seed", range(5))
def test_a_group_in_step_stays_separate(seed):
    """Four faces side by side move the same way, and some are missed."""
    group = [Face(walk(110 * position, 160)) for position in range(4)]
    ids = tracked(group, seed=seed, missed=0.1)
    assert [len(set(each)) for each in ids] == [1, 1, 1, 1]
    assert len(set.union(*map(set, ids))) == 4


@pytest.mark.parametrize("seed", range(5))
def test_the_next_face_has_a_new_id(seed):
    """It appears half a second later two faces away, or later in the same position."""
    aside = tracked([Face(walk(300, 0), goes=2), Face(walk(460, 0), comes=2.6)], seconds=4, seed=seed)
    assert not set(aside[0]) & set(aside[1])
    queue = tracked([Face(walk(300, 0), goes=2), Face(walk(300, 0), comes=3.2)], seconds=5, seed=seed)
    assert not set(queue[0]) & set(queue[1])


def test_a_face_of_another_size_is_another_face():
    """A far face is in the same position a moment later."""
    tracker = FaceTracker()
    assert tracker.update(boxes([100, 100, 160, 160]), 0.0) == ["face_0"]
    assert tracker.update(boxes([165, 165, 30, 30]), 0.1) == ["face_1"]


def test_a_face_gone_longer_than_the_age_gets_a_new_id():
    """A second is bridged, more is not, and the old id is never used again."""
    tracker = FaceTracker(max_age_seconds=1.0)
    here = boxes([0, 0, 100, 100])
    assert tracker.update(here, 0.0) == ["face_0"]
    assert tracker.update(here, 1.0) == ["face_0"]
    assert tracker.update(boxes(), 1.5) == []
    assert tracker.update(here, 2.1) == ["face_1"]


def test_two_frames_of_one_time_keep_the_id():
    """A source without times does not divide by zero."""
    tracker = FaceTracker()
    assert [tracker.update(boxes([x, 0, 100, 100]), 0.0) for x in (0, 10, 20)] == [["face_0"]] * 3


def test_memory_stays_bounded():
    """Ten thousand faces that appear once are forgotten after a second."""
    tracker = FaceTracker()
    ids = set()
    for step in range(10_000):
        ids.update(tracker.update(boxes([(step % 7) * 200, 0, 50, 50]), float(step)))
        assert len(tracker) <= 2
    assert len(ids) == 10_000
