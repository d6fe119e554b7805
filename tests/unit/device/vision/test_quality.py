"""The quality gate: a reason for each defect, and none for the demo's faces."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut, lfw_subset

from deploy.local.sample_video import make_sample
from device.settings import QualitySettings
from device.vision.alignment import align_faces
from device.vision.capture.camera import open_camera
from device.vision.detectors.cascade import CascadeDetector
from device.vision.detectors.detector import Detections
from device.vision.detectors.geometry import ARCFACE_POINTS, EYE_CORNER_POINTS
from device.vision.detectors.loader import load_detector
from device.vision.quality import QualityGate, brightness_and_sharpness, face_quality, head_poses

GATE = QualityGate(QualitySettings())
NO_LIMITS = QualitySettings(
    min_side=0, min_sharpness=0, min_brightness=0, max_brightness=0, max_yaw=0, max_pitch=0, max_roll=0
)
TEMPLATE = np.array(ARCFACE_POINTS.template)
HEAD = np.column_stack([TEMPLATE, (15, 15, 0, 14, 14)])


def a_face(person=0):
    """Return uint8[112, 112, 3] of a real face."""
    small = (lfw_subset()[person] * 255).astype(np.uint8)
    grown = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(grown + np.random.default_rng(person).normal(0, 3, grown.shape), 0, 255)
    return cv2.cvtColor(noisy.astype(np.uint8), cv2.COLOR_GRAY2BGR)


def found(count=1, side=100.0, landmarks=None):
    boxes = np.tile(np.array([[50, 50, side, 1.3 * side]], np.float32), (count, 1))
    points = None if landmarks is None else np.asarray(landmarks, np.float32)
    return Detections(boxes, np.ones(count, np.float32), points)


def turned_head(yaw=0.0, pitch=0.0, roll=0.0, distance=None):
    """Return float64[5, 2], the generic head from far away or from `distance` widths."""
    y, p, r = np.radians([-yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points = (HEAD - HEAD.mean(axis=0)) @ (about_z @ about_x @ about_y).T
    size = 1.7 if distance is None else 1.7 / (1 + points[:, 2:] / (distance * 80))
    return points[:, :2] * size + (300, 200)


def check_face(face, detections=None):
    return GATE.check_quality(face[None], detections or found())[0]


def test_a_large_sharp_face_has_the_best_quality():
    """Quality falls with size and sharpness, up to the 112 pixels of the crop."""

    def quality(side, blur=0):
        face = cv2.GaussianBlur(a_face(), (0, 0), blur) if blur else a_face()
        return face_quality(face, found(side=side).boxes[0])

    assert 0 < quality(112, blur=4) < quality(112, blur=2) < quality(112) < 1
    assert quality(56) == pytest.approx(quality(112) / 2)
    assert quality(300) == quality(112)
    assert face_quality(np.zeros((112, 112, 3), np.uint8), found().boxes[0]) == 0


def test_the_faces_of_the_demo_pass(tmp_path):
    """The cascade's faces in the sample video pass with the default settings."""
    detector = CascadeDetector()
    reasons = []
    with open_camera(str(make_sample(tmp_path, cameras=1)[0].path), fps=0) as frames:
        for frame in frames:
            seen = detector.detect(frame.image)
            reasons += GATE.check_quality(align_faces(frame.image, seen), seen)
    assert len(reasons) > 200
    assert set(reasons) == {None}


def test_a_small_face_is_too_small():
    """The shorter side of the box in the frame counts."""
    assert check_face(a_face(), found(side=39)) == "too_small"
    assert check_face(a_face(), found(side=41)) is None


@pytest.mark.parametrize("blur", [4, 6])
def test_a_blurred_photograph_is_blurred(blur):
    """A real portrait passes sharp and fails out of focus."""
    image = cv2.resize(np.ascontiguousarray(astronaut()[..., ::-1]), None, fx=2, fy=2)
    seen = CascadeDetector().detect(image)
    blurred = cv2.GaussianBlur(image, (0, 0), blur)
    assert GATE.check_quality(align_faces(image, seen), seen) == [None]
    assert GATE.check_quality(align_faces(blurred, seen), seen) == ["blurred"]


def motion_blurred(image, pixels, degrees):
    """Return `image` as a camera sees it that moves by `pixels` in a direction."""
    line = np.zeros((pixels, pixels), np.float32)
    line[pixels // 2] = 1
    turn = cv2.getRotationMatrix2D((pixels / 2 - 0.5, pixels / 2 - 0.5), degrees, 1)
    line = cv2.warpAffine(line, turn, (pixels, pixels))
    return cv2.filter2D(image, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 135])
@pytest.mark.parametrize(("pixels", "reason"), [(3, None), (7, None), (23, "blurred"), (31, "blurred")])
def test_motion_in_any_direction_is_blur(pixels, degrees, reason):
    """What one direction keeps does not make up for another; a little motion passes."""
    image = np.ascontiguousarray(astronaut()[..., ::-1])
    seen = load_detector().detect(image)
    moved = motion_blurred(image, pixels, degrees)
    assert GATE.check_quality(align_faces(moved, seen), seen) == [reason]


@pytest.mark.parametrize("noise", [0, 6])
def test_defocus_that_still_matches_passes(noise):
    """Noise neither hides blur nor makes it: the same frames pass and fail."""
    image = np.ascontiguousarray(astronaut()[..., ::-1])
    seen = load_detector().detect(image)
    grain = np.random.default_rng(1).normal(0, noise, image.shape)
    reasons = []
    for sigma in (1.5, 2.0, 4.5, 6.0):
        blurred = np.clip(cv2.GaussianBlur(image, (0, 0), sigma) + grain, 0, 255).astype(np.uint8)
        reasons += GATE.check_quality(align_faces(blurred, seen), seen)
    assert reasons == [None, None, "blurred", "blurred"]


def test_light_is_judged_by_the_mean_grey():
    """Night and glare reduce sharpness too: the reason is the cause."""
    face = a_face().astype(np.float32)
    assert check_face((face * 0.15).astype(np.uint8)) == "too_dark"
    assert check_face(np.clip(face * 0.2 + 215, 0, 255).astype(np.uint8)) == "too_bright"


def test_the_edge_of_the_crop_does_not_count():
    """A crop is black beyond the picture, which is neither dark nor blurred."""
    face = a_face()
    framed = np.zeros_like(face)
    framed[12:100, 12:100] = face[12:100, 12:100]
    whole, cut = brightness_and_sharpness(np.stack([face, framed]))
    assert cut.tolist() == whole.tolist()


@given(yaw=st.floats(-60, 60), pitch=st.floats(-50, 50), roll=st.floats(-170, 170))
def test_the_pose_of_the_generic_head_is_found(yaw, pitch, roll):
    """The result is exact from far away; the docstring defines the signs."""
    pose = head_poses(turned_head(yaw, pitch, roll)[None].astype(np.float32))[0]
    np.testing.assert_allclose(pose, (yaw, pitch, roll), atol=0.1)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (0, 20), (-40, 15)])
def test_the_pose_holds_from_near(yaw, pitch):
    """From half a metre perspective shifts it by a few degrees."""
    pose = head_poses(turned_head(yaw, pitch, 5, distance=4)[None].astype(np.float32))[0]
    np.testing.assert_allclose(pose, (yaw, pitch, 5), atol=8)


@pytest.mark.parametrize("roll", [0, 20, -35, 90, -170])
def test_eye_corners_tell_the_roll_alone(roll):
    """Yaw and pitch of points in one plane are unknown; no limit holds for them."""
    turn = np.radians(roll)
    points = np.array(EYE_CORNER_POINTS.template) @ [
        [np.cos(turn), np.sin(turn)],
        [-np.sin(turn), np.cos(turn)],
    ]
    pose = head_poses((3 * points + 200)[None].astype(np.float32), EYE_CORNER_POINTS)[0]
    assert np.isnan(pose[:2]).all()
    assert pose[2] == pytest.approx(roll, abs=0.1)
    seen = replace(found(landmarks=points[None].astype(np.float32)), layout=EYE_CORNER_POINTS)
    assert check_face(a_face(), seen) == ("turned" if abs(roll) > 45 else None)


@pytest.mark.parametrize(
    ("pose", "reason"),
    [
        ({}, None),
        ({"yaw": 30, "pitch": 20, "roll": 20}, None),
        ({"yaw": 60}, "turned"),
        ({"yaw": -60}, "turned"),
        ({"pitch": 50}, "turned"),
        ({"pitch": -50}, "turned"),
        ({"roll": 60}, "turned"),
        ({"roll": 180}, "turned"),
    ],
)
def test_a_face_that_looks_away_is_turned(pose, reason):
    """The head turns to either side, up or down, or lies."""
    assert check_face(a_face(), found(landmarks=[turned_head(**pose)])) == reason


@pytest.mark.parametrize("points", [None, np.full((1, 5, 2), np.nan), np.full((1, 5, 2), 7.0)])
def test_without_landmarks_the_pose_is_not_checked(points):
    """They are missing, NaN or degenerate; the other limits apply."""
    assert check_face(a_face(), found(landmarks=points)) is None
    assert check_face(np.zeros((112, 112, 3), np.uint8), found(landmarks=points)) == "too_dark"


def test_each_face_of_a_frame_is_checked_separately():
    """One call returns the reasons in order."""
    faces = np.stack([a_face(), a_face(1) // 8, cv2.GaussianBlur(a_face(2), (0, 0), 6), a_face(3)])
    points = np.stack([turned_head(yaw=70), turned_head(), turned_head(), turned_head()])
    assert GATE.check_quality(faces, found(4, landmarks=points)) == ["turned", "too_dark", "blurred", None]
    assert GATE.check_quality(np.empty((0, 112, 112, 3), np.uint8), Detections.empty()) == []


@pytest.mark.parametrize("face", [np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 255, np.uint8)])
def test_a_limit_of_zero_is_off(face):
    """With all limits off every face passes."""
    lying = found(side=3, landmarks=[turned_head(yaw=80, roll=180)])
    assert QualityGate(NO_LIMITS).check_quality(face[None], lying) == [None]


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"min_side": 40}, "too_small"),
        ({"min_sharpness": 1}, "blurred"),
        ({"min_brightness": 30}, "too_dark"),
        ({"max_yaw": 45}, "turned"),
        ({"max_roll": 45}, "turned"),
    ],
)
def test_each_limit_alone_gives_its_reason(limit, reason):
    """No limit stands in for another."""
    gate = QualityGate(NO_LIMITS.model_copy(update=limit))
    bad = found(side=3, landmarks=[turned_head(yaw=80, roll=170)])
    assert gate.check_quality(np.zeros((1, 112, 112, 3), np.uint8), bad) == [reason]


def test_faces_and_detections_must_correspond():
    """Another number or size of faces is a mistake of the caller."""
    with pytest.raises(ValueError, match=r"faces are uint8\[2, 112, 112, 3\]"):
        GATE.check_quality(np.zeros((1, 112, 112, 3), np.uint8), found(2))
    with pytest.raises(ValueError, match="these are uint8"):
        GATE.check_quality(np.zeros((1, 96, 96, 3), np.uint8), found())
