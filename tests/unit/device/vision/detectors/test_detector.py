"""Detections check their shapes and drop invalid boxes; the cascade finds faces."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, lfw_subset

from device.vision.detectors.cascade import CascadeDetector
from device.vision.detectors.detector import Detections, FaceBox
from device.vision.detectors.loader import load_detector


def test_shapes_are_checked_on_construction():
    """A wrong shape raises in the constructor."""
    boxes, scores = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    assert len(Detections(boxes, scores)) == 2
    with pytest.raises(ValueError, match="boxes"):
        Detections(np.zeros((2, 5), np.float32), scores)
    with pytest.raises(ValueError, match="scores"):
        Detections(boxes, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="landmarks"):
        Detections(boxes, scores, np.zeros((2, 4, 2), np.float32))
    with pytest.raises(ValueError, match="float64"):
        Detections(boxes.astype(np.float64), scores)


def test_a_photograph_with_one_face_has_one_detection():
    """scikit-image's portrait of Eileen Collins has a face at (220, 110)."""
    found = CascadeDetector().detect(np.ascontiguousarray(astronaut()[..., ::-1]))
    assert len(found) == 1
    box = found.face_box(0)
    assert abs(box.x + box.width / 2 - 222) < 20
    assert abs(box.y + box.height / 2 - 115) < 25
    assert 0 < found.scores[0] < 1


def test_a_picture_without_a_face_has_no_detection():
    """The shapes hold without rows, too."""
    noise = np.random.default_rng(1).integers(90, 160, (480, 640, 3), dtype=np.uint8)
    found = CascadeDetector().detect(noise)
    assert (found.boxes.shape, found.scores.shape, found.landmarks) == ((0, 4), (0,), None)


def test_a_face_box_has_whole_pixels():
    """Events and images use the box."""
    found = Detections(np.array([[1.4, 2.6, 10.5, 11.2]], np.float32), np.ones(1, np.float32))
    assert found.face_box(0) == FaceBox(1, 3, 10, 11)


NAN, INF = float("nan"), float("inf")
PICTURE = np.zeros((100, 200, 3), np.uint8)


def detections(*rows, landmarks=None):
    """Return detections of xywh boxes, all of score 0.9."""
    return Detections(np.array(rows, np.float32), np.full(len(rows), 0.9, np.float32), landmarks)


def test_boxes_are_cut_to_the_picture():
    """The box has the visible part; landmarks stay where the model found them."""
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2) - 15
    found = detections([-20, 10, 50, 60], [150, 70, 80, 80], landmarks=points).clip_to(PICTURE)
    assert found.boxes.tolist() == [[0, 10, 30, 60], [150, 70, 50, 30]]
    np.testing.assert_array_equal(found.landmarks, points)


@pytest.mark.parametrize(
    "box",
    [
        [NAN, 10, 50, 50],
        [10, 10, 50, NAN],
        [10, 10, INF, 50],
        [-INF, 10, 50, 50],
        [10, 10, 0, 0],
        [10, 10, 50, 0],
        [10, 10, -5, 50],
        [200, 10, 50, 50],
        [10, -60, 50, 50],
        [3e38, 10, 3e38, 50],
        [10, 10, 0.2, 50],
    ],
)
def test_invalid_boxes_are_dropped(box):
    """The box is not finite, has no area or is beyond the edge.

    Other boxes and their scores stay.
    """
    whole = [20, 20, 40, 40]
    points = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    found = detections(whole, box, whole, landmarks=points).clip_to(PICTURE)
    assert found.boxes.tolist() == [whole, whole]
    np.testing.assert_array_equal(found.landmarks, points[[0, 2]])


def test_a_score_that_is_no_number_is_dropped():
    """Its box does not matter."""
    found = Detections(np.array([[10, 10, 50, 50]] * 2, np.float32), np.array([NAN, 0.5], np.float32))
    assert found.clip_to(PICTURE).scores.tolist() == [0.5]


def test_the_longer_side_decides_the_minimum_size():
    """A tight box around a face is narrower than high."""
    found = detections([10, 10, 30, 40], [10, 10, 38, 39]).clip_to(PICTURE, min_side=40)
    assert found.boxes.tolist() == [[10, 10, 30, 40]]


def test_a_frame_without_pixels_has_no_face():
    """An empty frame of a camera is no error."""
    found = CascadeDetector().detect(np.zeros((0, 0, 3), np.uint8))
    assert (len(found), found.landmarks) == (0, None)


@pytest.mark.parametrize(
    "frame", [np.zeros((480, 640), np.uint8), np.zeros((480, 640, 1), np.uint8), np.zeros((48, 64, 3))]
)
def test_a_frame_of_another_kind_is_refused(frame):
    """The sentence names the shape and type of a frame."""
    with pytest.raises(
        ValueError, match=r"a frame is uint8\[h, w, 3\] in BGR, this one is (uint8|float64)\["
    ):
        CascadeDetector().detect(frame)


def test_the_cascade_is_the_default_detector():
    """It needs no model file and uses the configured size."""
    assert load_detector().name == "cascade"
    face = cv2.resize((lfw_subset()[0] * 255).astype(np.uint8), (70, 70), interpolation=cv2.INTER_CUBIC)
    frame = np.full((480, 640, 3), 128, np.uint8)
    frame[200:270, 300:370] = face[..., None]
    assert len(load_detector("cascade", min_face_pixels=50).detect(frame)) == 1
    assert len(load_detector("cascade", min_face_pixels=120).detect(frame)) == 0
