"""Detections check themselves, the cascade finds real faces, crops lie where the face is."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, lfw_subset

from device.vision.alignment import crop_faces
from device.vision.cascade import CascadeDetector
from device.vision.detector import Detections, FaceBox


def test_shapes_are_checked_on_construction():
    """A wrong shape is found where it is made, not three modules later."""
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


def test_a_real_photograph_has_its_one_face():
    """scikit-image's portrait of Eileen Collins; the face lies about (220, 110)."""
    found = CascadeDetector().detect(np.ascontiguousarray(astronaut()[..., ::-1]))
    assert len(found) == 1
    box = found.face_box(0)
    assert abs(box.x + box.width / 2 - 222) < 20
    assert abs(box.y + box.height / 2 - 115) < 25
    assert 0 < found.scores[0] < 1


def test_an_empty_wall_has_no_face():
    """Shapes hold for nobody, too."""
    noise = np.random.default_rng(1).integers(90, 160, (480, 640, 3), dtype=np.uint8)
    found = CascadeDetector().detect(noise)
    assert (found.boxes.shape, found.scores.shape, found.landmarks) == ((0, 4), (0,), None)


def test_faces_smaller_than_the_smallest_are_not_looked_for():
    """The setting that keeps it fast."""
    face = cv2.resize((lfw_subset()[0] * 255).astype(np.uint8), (70, 70), interpolation=cv2.INTER_CUBIC)
    frame = np.full((480, 640, 3), 128, np.uint8)
    frame[200:270, 300:370] = face[..., None]
    assert len(CascadeDetector(min_face_pixels=120).detect(frame)) == 0
    assert len(CascadeDetector(min_face_pixels=50).detect(frame)) == 1


def test_a_crop_is_the_square_round_the_box():
    """The middle of the box is the middle of the crop, and scale is kept."""
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[50:106, 100:156] = 200
    crop = crop_faces(frame, np.array([[100, 50, 56, 56]], np.float32))
    assert crop.shape == (1, 112, 112, 3)
    assert (crop[0, 4:-4, 4:-4] == 200).all()
    padded = crop_faces(frame, np.array([[100, 50, 56, 56]], np.float32), padding=0.5)[0]
    assert (padded[32:80, 32:80] == 200).all()
    assert not padded[:24].any()


def test_a_crop_over_the_edge_repeats_the_edge():
    """A face half out of the picture is still 112x112."""
    frame = np.full((100, 100, 3), 70, np.uint8)
    assert (crop_faces(frame, np.array([[-30, -30, 60, 60], [80, 80, 90, 90]], np.float32)) == 70).all()


@pytest.mark.parametrize("box", [[10, 10, 0, 20], [10, 10, float("nan"), 20], [float("inf"), 0, 5, 5]])
def test_a_box_without_area_is_refused(box):
    """Not an OpenCV assertion."""
    with pytest.raises(ValueError, match="face box"):
        crop_faces(np.zeros((50, 50, 3), np.uint8), np.array([box], np.float32))


def test_a_face_box_is_whole_pixels():
    """It goes into events and images."""
    found = Detections(np.array([[1.4, 2.6, 10.5, 11.2]], np.float32), np.ones(1, np.float32))
    assert found.face_box(0) == FaceBox(1, 3, 10, 11)
