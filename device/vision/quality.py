"""Check the quality of faces: size, sharpness, light and pose."""

import math
import operator
from functools import cache
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .alignment import similarity_transforms
from .detectors.detector import Detections, Float32
from .detectors.geometry import ARCFACE_POINTS, FACE_SIZE, LandmarkLayout

# Why a face is not good enough. The heartbeat counts these reasons.
TOO_SMALL: Final = "too_small"
TURNED: Final = "turned"
TOO_DARK: Final = "too_dark"
TOO_BRIGHT: Final = "too_bright"
BLURRED: Final = "blurred"

# Sharpness (grey levels squared) at which a 112x112 face counts as half sharp.
_HALF_SHARP = 60.0

Float64 = NDArray[np.float64]

# Border of the face that is not measured: background, or the repeated edge of the image.
_MARGIN = 16
# How far apart the pixels are that sharpness compares: noise and JPEG change neighbours, blur these.
_REACH = 3
# Down and right to the neighbour, and a weight: a diagonal is longer.
_DIRECTIONS = ((0, _REACH, 1.0), (_REACH, 0, 1.0), (_REACH, _REACH, 0.5), (_REACH, -_REACH, 0.5))


class QualityLimits(Protocol):
    """Limits in pixels, grey levels squared, grey levels and degrees; 0 disables one."""

    @property
    def min_side(self) -> float: ...
    @property
    def min_sharpness(self) -> float: ...
    @property
    def min_brightness(self) -> float: ...
    @property
    def max_brightness(self) -> float: ...
    @property
    def max_yaw(self) -> float: ...
    @property
    def max_pitch(self) -> float: ...
    @property
    def max_roll(self) -> float: ...


class QualityGate:
    """The check of a frame's faces against `limits`."""

    def __init__(self, limits: QualityLimits) -> None:
        self._limits = limits
        self._most_turned = np.array([limits.max_yaw, limits.max_pitch, limits.max_roll])
        self._most_turned[self._most_turned == 0] = np.inf

    def check_quality(self, faces: NDArray[np.uint8], found: Detections) -> list[str | None]:
        """Return per face the reason why it is not good enough, or None.

        The reason is the first of `too_small`, `turned`, `too_dark`, `too_bright` and `blurred` that holds.
        `faces` is uint8[n, 112, 112, 3] of the n `found`. The pose of a face without finite landmarks is not
        checked. Raises ValueError for other shapes.
        """
        if faces.shape != (len(found), FACE_SIZE, FACE_SIZE, 3) or faces.dtype != np.uint8:
            raise ValueError(
                f"faces are uint8[{len(found)}, {FACE_SIZE}, {FACE_SIZE}, 3], "
                f"these are {faces.dtype}{list(faces.shape)}"
            )
        if not len(found):
            return []
        small = found.boxes[:, 2:].min(axis=1) < self._limits.min_side
        turned = self._turned(found)
        light = brightness_and_sharpness(faces)
        return [
            TOO_SMALL if is_small else TURNED if is_turned else self._ill_lit(*measures)
            for is_small, is_turned, measures in zip(
                small.tolist(), turned.tolist(), light.tolist(), strict=True
            )
        ]

    def _ill_lit(self, brightness: float, sharpness: float) -> str | None:
        limits = self._limits
        if brightness < limits.min_brightness:
            return TOO_DARK
        if 0 < limits.max_brightness < brightness:
            return TOO_BRIGHT
        return BLURRED if sharpness < limits.min_sharpness else None

    def _turned(self, found: Detections) -> NDArray[np.bool_]:
        if found.landmarks is None or np.isinf(self._most_turned).all():
            return np.zeros(len(found), dtype=np.bool_)
        # NaN, an angle that is not known, compares as not greater.
        beyond = np.abs(head_poses(found.landmarks, found.layout)) > self._most_turned
        return np.asarray(beyond.any(axis=1), dtype=np.bool_)


def brightness_and_sharpness(faces: NDArray[np.uint8]) -> Float64:
    """Return float64[n, 2], brightness and sharpness of faces uint8[n, 112, 112, 3].

    Brightness is the mean grey level (0..255). Sharpness is, along the direction in which it is least, the
    mean square of how far a pixel is from the mean of its two neighbours at three pixels, in grey levels
    squared: motion blurs one direction alone. Both are of the middle 80x80 pixels of each face.
    """
    # One tall image, since a call of OpenCV costs more than its work on a face.
    edge = _MARGIN - _REACH
    middles = np.ascontiguousarray(faces[:, edge:-edge, edge:-edge])
    side = middles.shape[1]
    grey = cv2.cvtColor(middles.reshape(-1, side, 3), cv2.COLOR_BGR2GRAY).reshape(-1, side, side)
    levels = grey.astype(np.int16)
    inner = slice(_REACH, -_REACH)
    centre = levels[:, inner, inner]
    measures = np.empty((len(faces), 2))
    measures[:, 0] = centre.mean(axis=(1, 2))
    measures[:, 1] = np.inf
    for down, right, weight in _DIRECTIONS:
        before, after = (
            levels[:, slice(_REACH + y, side - _REACH + y), slice(_REACH + x, side - _REACH + x)]
            for y, x in ((down, right), (-down, -right))
        )
        # Twice the difference, in whole numbers.
        difference = before + after
        difference -= centre
        difference -= centre
        for row, of_face in enumerate(difference):
            detail = weight / 4 * cv2.norm(of_face, cv2.NORM_L2SQR) / of_face.size
            measures[row, 1] = min(measures[row, 1], detail)
    return measures


def face_quality(face: NDArray[np.uint8], box: Float32) -> float:
    """Return the quality of `face` (uint8[112, 112, 3]) as a template, 0..1.

    It is size times sharpness.

    `box` is float32[4], xywh in pixels of the picture: its shorter side counts, up to 112.
    """
    sharpness = float(brightness_and_sharpness(face[None])[0, 1])
    size = min(1.0, float(box[2:].min()) / FACE_SIZE)
    return size * sharpness / (sharpness + _HALF_SHARP)


def head_poses(landmarks: Float32, layout: LandmarkLayout = ARCFACE_POINTS) -> Float64:
    """Return float64[n, 3], yaw, pitch and roll in degrees.

    The input `landmarks` is float32[n, 5, 2]. Positive is towards the right of the picture, down, and
    clockwise; NaN for degenerate landmarks, and for yaw and pitch of a layout without depths. The layout's
    template is 0, 0, 0.

    Pose from orthography and scaling (DeMenthon and Davis 1995): the affine camera that takes a generic
    head to the landmarks is a product with the head's pseudo-inverse; its rows are the first two of the
    rotation, scaled. Noses differ, so this is right to some ten degrees.
    """
    poses = np.full((len(landmarks), 3), np.nan)
    inverse = _head_inverse(layout)
    if inverse is None:
        # The transform turns the face back.
        transforms = similarity_transforms(landmarks, layout)
        poses[:, 2] = -np.degrees(np.arctan2(transforms[:, 1, 0], transforms[:, 0, 0]))
        return poses
    # Few faces of five points: plain arithmetic costs less than arrays do.
    for row, face in enumerate(landmarks.tolist()):
        right, down = (_direction([point[axis] for point in face], inverse) for axis in (0, 1))
        # The third row of the rotation: where the back of the head is.
        x = right[1] * down[2] - right[2] * down[1]
        y = right[2] * down[0] - right[0] * down[2]
        z = right[0] * down[1] - right[1] * down[0]
        angles = (math.atan2(x, z), math.atan2(y, math.hypot(x, z)), math.atan2(-right[1], down[1]))
        if all(map(math.isfinite, angles)):
            poses[row] = [math.degrees(angle) for angle in angles]
    return poses


def _direction(coordinates: list[float], inverse: list[list[float]]) -> tuple[float, float, float]:
    """Return one row of the rotation from the landmarks along one axis, or NaN."""
    middle = sum(coordinates) / len(coordinates)
    away = [coordinate - middle for coordinate in coordinates]
    x, y, z = (sum(map(operator.mul, weights, away)) for weights in inverse)
    length = math.hypot(x, y, z)
    return (x / length, y / length, z / length) if length else (math.nan, math.nan, math.nan)


@cache
def _head_inverse(layout: LandmarkLayout) -> list[list[float]] | None:
    """Return the pseudo-inverse of the centred head, 3 x 5, None without depths."""
    if layout.depths is None:
        return None
    head = np.column_stack([layout.template, layout.depths])
    inverse: list[list[float]] = np.linalg.pinv(head - head.mean(axis=0)).tolist()
    return inverse
