"""Landmarks for detectors that have none, or none for spaces of boxes."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, cell

from device.vision.alignment import align_faces, similarity_transforms
from device.vision.detectors.cascade import CascadeDetector
from device.vision.detectors.detector import Detections
from device.vision.detectors.geometry import (
    ARCFACE_POINTS,
    CASCADE_FRAME,
    EYE_CORNER_POINTS,
    PREDICTOR_FRAMES,
    TIGHT_FRAME,
)
from device.vision.detectors.landmark_detector import BoxDetector, LandmarkDetector
from device.vision.detectors.loader import load_detector
from tests.detector_networks import save_scrfd, save_yunet

PORTRAIT = np.ascontiguousarray(astronaut()[..., ::-1])
# Eyes, nose and mouth of the portrait, as a detector of five landmarks (MTCNN) finds them.
FIVE_POINTS = np.array([[203, 101], [246, 103], [224, 128], [201, 139], [244, 141]], np.float32)


class FixedDetector:
    name = "cascade"

    def __init__(self, found):
        self.found = found

    def detect(self, image):
        return self.found


def boxes_only(*boxes, frame=CASCADE_FRAME, scores=None):
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    given = np.full(len(rows), 0.9) if scores is None else np.array(scores)
    return Detections(rows, given.astype(np.float32), frame=frame)


@pytest.fixture(scope="module")
def cascade():
    return load_detector()


def test_faces_of_the_cascade_have_landmarks_by_default(cascade):
    """Their layout is the predictor's; box, score and name stay the cascade's."""
    found, boxes = cascade.detect(PORTRAIT), CascadeDetector().detect(PORTRAIT)
    assert (cascade.name, found.layout) == ("cascade", EYE_CORNER_POINTS)
    assert (found.landmarks.shape, found.landmarks.dtype) == ((1, 5, 2), np.float32)
    np.testing.assert_array_equal(found.boxes, boxes.boxes)
    np.testing.assert_array_equal(found.scores, boxes.scores)
    right_outer, right_inner, left_outer, left_inner, nose = found.landmarks[0]
    assert left_outer[0] < left_inner[0] < nose[0] < right_inner[0] < right_outer[0]


def test_the_crop_agrees_with_that_of_arcfaces_points(cascade):
    """The frame is that of ArcFace's five points, within some pixels of 112."""
    found = cascade.detect(PORTRAIT)
    predicted = similarity_transforms(found.landmarks, found.layout)[0]
    five = similarity_transforms(FIVE_POINTS[None], ARCFACE_POINTS)[0]
    corners = cv2.invertAffineTransform(five) @ np.array([[0, 0, 1], [112, 0, 1], [0, 112, 1]]).T
    there = predicted[:, :2] @ corners + predicted[:, 2:]
    np.testing.assert_allclose(there.T, [[0, 0], [112, 0], [0, 112]], atol=9)


def test_a_tilted_head_comes_upright(cascade):
    """The predictor follows a head that the cascade still finds; a box can not."""
    turn = cv2.getRotationMatrix2D((222, 115), 14, 1.0)
    tilted = cv2.warpAffine(PORTRAIT, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    upright, turned = (align_faces(picture, cascade.detect(picture))[0] for picture in (PORTRAIT, tilted))
    boxes = load_detector(alignment="box")
    by_box = align_faces(tilted, boxes.detect(tilted))[0]
    middle = np.s_[20:92, 20:92]
    difference, of_boxes = (
        np.abs(upright[middle].astype(float) - face[middle]).mean() for face in (turned, by_box)
    )
    assert difference < 12 < of_boxes


def test_a_space_of_boxes_has_no_landmarks():
    """Neither predicted ones nor the detector's own."""
    assert load_detector(alignment="box").detect(PORTRAIT).landmarks is None
    own = Detections(FIVE_POINTS[:1].repeat(2, axis=1), np.ones(1, np.float32), FIVE_POINTS[None])
    assert BoxDetector(FixedDetector(own)).detect(PORTRAIT).landmarks is None


@pytest.mark.parametrize(
    ("kind", "save", "predicted"),
    [
        ("yunet", save_yunet, False),
        ("scrfd", save_scrfd, False),
        ("scrfd", lambda path: save_scrfd(path, landmarks=False), True),
    ],
    ids=["yunet", "scrfd", "scrfd without landmarks"],
)
def test_only_a_model_without_landmarks_gets_them(tmp_path, kind, save, predicted):
    """The predictor is not loaded beside a model that has its own."""
    path = tmp_path / "model.onnx"
    save(path)
    detector = load_detector(kind, path)
    assert isinstance(detector, LandmarkDetector) == predicted
    assert (detector.name, detector.detect(PORTRAIT).landmarks is None) == (kind, False)
    assert load_detector(kind, path, alignment="box").detect(PORTRAIT).landmarks is None


@pytest.mark.parametrize("frame", PREDICTOR_FRAMES, ids=["cascade", "tight"])
def test_both_kinds_of_boxes_lead_to_the_same_landmarks(frame):
    """A tight, tall box and the cascade's wide one start the predictor alike."""
    box = {CASCADE_FRAME: (172, 64, 106, 106), TIGHT_FRAME: (186, 58, 80, 110)}[frame]
    found = LandmarkDetector(FixedDetector(boxes_only(box, frame=frame))).detect(PORTRAIT)
    np.testing.assert_allclose(found.landmarks[0, 2], (195, 101), atol=4)
    np.testing.assert_allclose(found.landmarks[0, 0], (255, 104), atol=4)


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [(0, 0, 1, 1)],
        [(0, 0, 512, 512)],
        [(-30, -30, 80, 80), (480, 490, 60, 60), (170, 64, 106, 106)],
        [(600, 600, 90, 90)],
        [(511, 511, 1, 1)],
        [(10, 10, 0.5, 400)],
    ],
    ids=["none", "a pixel", "whole picture", "over edges", "outside", "last pixel", "sliver"],
)
def test_boxes_of_any_kind_can_be_aligned(boxes):
    """Each gives a crop, by its landmarks or by its box."""
    found = LandmarkDetector(FixedDetector(boxes_only(*boxes))).detect(PORTRAIT)
    assert len(found) == len(boxes)
    assert align_faces(PORTRAIT, found).shape == (len(boxes), 112, 112, 3)


FACE = (172, 64, 106, 106)
# The chin, the flag, the sleeve, and half of the face.
FALSE = ((180, 130, 80, 80), (20, 200, 100, 100), (300, 300, 120, 120), (180, 100, 80, 80))


def test_a_false_find_of_the_cascade_is_no_face(cascade):
    """A microscope's picture has a find of six windows, whose landmarks move."""
    picture = np.repeat(cell()[..., None], 3, axis=2)
    assert len(CascadeDetector().detect(picture)) == 1
    found = cascade.detect(picture)
    assert (len(found), found.landmarks.shape) == (0, (0, 5, 2))


@pytest.mark.parametrize("box", FALSE, ids=["chin", "flag", "sleeve", "half a face"])
@pytest.mark.parametrize(("score", "kept"), [(0.375, 0), (0.79, 0), (0.8, 1), (0.9, 1)])
def test_a_doubtful_find_needs_landmarks_that_stay(box, score, kept):
    """A find of many windows is a face without a second look."""
    found = LandmarkDetector(FixedDetector(boxes_only(box, scores=[score]))).detect(PORTRAIT)
    assert len(found) == kept


def test_a_doubtful_face_stays_among_false_finds():
    """The others are dropped, wherever they are in the list, and rows stay together."""
    boxes = boxes_only(FALSE[0], FACE, FALSE[1], FACE, FALSE[2], scores=[0.5, 0.4, 0.6, 0.9, 0.375])
    found = LandmarkDetector(FixedDetector(boxes)).detect(PORTRAIT)
    np.testing.assert_array_equal(found.boxes, [FACE, FACE])
    np.testing.assert_allclose(found.scores, [0.4, 0.9])
    np.testing.assert_array_equal(found.landmarks[0], found.landmarks[1])
