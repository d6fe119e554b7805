"""Alignment: landmarks are moved to ArcFace's; without them the box is the crop."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut
from skimage.transform import estimate_transform

from device.vision.alignment import align_faces, crop_faces, similarity_transforms
from device.vision.detectors.detector import Detections
from device.vision.detectors.geometry import (
    ARCFACE_POINTS,
    CASCADE_FRAME,
    EYE_CORNER_POINTS,
    TIGHT_FRAME,
    BoxFrame,
)

TEMPLATE = np.array(ARCFACE_POINTS.template)
NAN = float("nan")


def moved(points, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T * scale + shift


def applied(transform, points):
    return points @ transform[:, :2].T + transform[:, 2]


def detections(*landmarks):
    boxes = np.tile(np.array([[20, 30, 60, 70]], np.float32), (len(landmarks), 1))
    return Detections(boxes, np.ones(len(landmarks), np.float32), np.array(landmarks, np.float32))


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.1, 20),
    shift=st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_a_turned_scaled_and_moved_face_comes_back_to_the_template(degrees, scale, shift):
    """The result is exact for every rotation."""
    landmarks = moved(TEMPLATE, degrees, scale, shift).astype(np.float32)
    transform = similarity_transforms(landmarks[None])[0]
    np.testing.assert_allclose(applied(transform, landmarks), TEMPLATE, atol=0.05)


@given(st.integers(0, 2**32 - 1))
def test_the_fit_is_the_least_squares_similarity_of_umeyama(seed):
    """It equals scikit-image's, also for faces that fit the template badly."""
    random = np.random.default_rng(seed)
    landmarks = moved(TEMPLATE, random.uniform(-60, 60), random.uniform(0.5, 5), random.uniform(0, 900, 2))
    landmarks = (landmarks + random.normal(0, 3, (5, 2))).astype(np.float32)
    reference = estimate_transform("similarity", landmarks.astype(np.float64), TEMPLATE)
    np.testing.assert_allclose(
        similarity_transforms(landmarks[None])[0], reference.params[:2], rtol=1e-4, atol=1e-4
    )


def test_faces_of_one_frame_are_aligned_separately():
    """Three tilted faces of different sizes have their landmarks at the template."""
    frame = np.zeros((600, 900, 3), np.uint8)
    people = [
        moved(TEMPLATE, *course)
        for course in [(0, 1.0, (50, 60)), (25, 2.0, (400, 60)), (-35, 1.5, (500, 400))]
    ]
    for points in people:
        for x, y in points:
            cv2.circle(frame, (round(x), round(y)), 4, (255, 255, 255), -1)
    faces = align_faces(frame, detections(*people))
    assert faces.shape == (3, 112, 112, 3)
    for face in faces:
        for x, y in TEMPLATE:
            assert face[round(y), round(x)].min() > 200
        assert face.mean() < 60


def test_a_real_face_is_turned_upright():
    """A photograph turned by 30 degrees gives nearly the crop of the upright one."""
    image = np.ascontiguousarray(astronaut()[..., ::-1])
    eyes_nose_mouth = np.array([[202, 104], [243, 101], [226, 126], [208, 147], [246, 144]], np.float64)
    turn = cv2.getRotationMatrix2D((256, 256), 30, 1.0)
    turned = cv2.warpAffine(image, turn, (512, 512))
    upright = align_faces(image, detections(eyes_nose_mouth))[0]
    again = align_faces(turned, detections(applied(turn, eyes_nose_mouth)))[0]
    middle = np.s_[16:96, 16:96]
    assert np.abs(upright[middle].astype(float) - again[middle]).mean() < 6


@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), 50.0),
        np.full((5, 2), NAN),
        np.where(np.arange(10).reshape(5, 2) == 3, NAN, TEMPLATE),
        np.where(np.arange(10).reshape(5, 2) == 3, np.inf, TEMPLATE),
        np.full((5, 2), 50.0) + np.eye(5, 2) * 0.1,
    ],
    ids=["all in one place", "NaN", "one NaN", "one infinite", "nearly in one place"],
)
def test_degenerate_landmarks_fall_back_to_the_box(points):
    """Only that face falls back; the other face is aligned."""
    frame = np.random.default_rng(3).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    found = detections(points, moved(TEMPLATE, 10, 1.2, (30, 5)))
    faces = align_faces(frame, found)
    np.testing.assert_array_equal(faces[0], crop_faces(frame, found.boxes[:1])[0])
    np.testing.assert_array_equal(faces[1], align_faces(frame, detections(found.landmarks[1]))[0])
    assert (faces[1] != crop_faces(frame, found.boxes[1:])[0]).any()


@pytest.mark.parametrize("frame", [CASCADE_FRAME, TIGHT_FRAME], ids=["cascade", "tight"])
def test_without_landmarks_faces_are_cut_by_their_boxes(frame):
    """Each detector's own frame is used."""
    picture = np.random.default_rng(4).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    boxes = np.array([[20, 30, 60, 70], [90, 10, 50, 50]], np.float32)
    found = Detections(boxes, np.ones(2, np.float32), frame=frame)
    np.testing.assert_array_equal(align_faces(picture, found), crop_faces(picture, boxes, frame))


@pytest.mark.parametrize("degrees", [0, 25, -160])
def test_eye_corners_and_the_base_of_the_nose_align_by_their_own_template(degrees):
    """Faces of dlib's five points come back to their places in ArcFace's frame."""
    template = np.array(EYE_CORNER_POINTS.template)
    landmarks = moved(template, degrees, 2.5, (300, 200)).astype(np.float32)
    transform = similarity_transforms(landmarks[None], EYE_CORNER_POINTS)[0]
    np.testing.assert_allclose(applied(transform, landmarks), template, atol=0.01)


@pytest.mark.parametrize("landmarks", [True, False])
def test_no_faces_are_an_empty_array(landmarks):
    """A frame without pixels is accepted."""
    faces = align_faces(np.zeros((0, 0, 3), np.uint8), Detections.empty(landmarks=landmarks))
    assert (faces.shape, faces.dtype) == ((0, 112, 112, 3), np.uint8)


@pytest.mark.parametrize("box", [(100, 50, 56, 56), (100, 50, 40, 56), (100, 50, 56, 40)])
@pytest.mark.parametrize("frame", [BoxFrame(1.0, 0.0, 0.0), BoxFrame(1.25, 0.1, -0.2), CASCADE_FRAME])
def test_a_crop_is_the_frame_around_the_box(box, frame):
    """The square of `scale` times the longer side, moved, fills the crop."""
    x, y, width, height = box
    longer = max(width, height)
    side = frame.scale * longer
    left = x + width / 2 + frame.right * longer - side / 2
    top = y + height / 2 + frame.down * longer - side / 2
    picture = np.zeros((200, 300, 3), np.float32)
    picture[..., 0], picture[..., 1] = np.meshgrid(np.arange(300) * 0.5, np.arange(200) * 0.5)
    crop = crop_faces(np.rint(picture).astype(np.uint8), np.array([box], np.float32), frame)[0]
    # Each pixel says where it was.
    assert crop[56, [0, 111], 0] / 0.5 == pytest.approx([left, left + side], abs=2.5)
    assert crop[[0, 111], 56, 1] / 0.5 == pytest.approx([top, top + side], abs=2.5)


def test_the_cascade_has_the_frame_that_was_measured():
    """ArcFace's frame is 1.087 of the box, and 7.3 % higher."""
    assert (CASCADE_FRAME.scale, CASCADE_FRAME.right, CASCADE_FRAME.down) == (1.087, -0.005, -0.073)


def test_a_face_over_the_edge_repeats_the_edge():
    """Landmarks near the edge of the picture give no black pixels."""
    picture = np.full((100, 100, 3), 70, np.uint8)
    assert (align_faces(picture, detections(TEMPLATE - 40, TEMPLATE + 30)) == 70).all()


def test_a_crop_over_the_edge_repeats_the_edge():
    """A face half out of the picture has a crop of 112x112."""
    frame = np.full((100, 100, 3), 70, np.uint8)
    assert (crop_faces(frame, np.array([[-30, -30, 60, 60], [80, 80, 90, 90]], np.float32)) == 70).all()


@pytest.mark.parametrize("box", [[10, 10, 0, 20], [10, 10, float("nan"), 20], [float("inf"), 0, 5, 5]])
def test_a_box_without_area_is_refused(box):
    """The error is a sentence instead of OpenCV's assertion."""
    with pytest.raises(ValueError, match="face box"):
        crop_faces(np.zeros((50, 50, 3), np.uint8), np.array([box], np.float32))
