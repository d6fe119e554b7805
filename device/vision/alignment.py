"""Align faces of a frame to the 112x112 images that embedding models take."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from .capture.sources import Image
from .detectors.detector import Detections, Float32

FACE_SIZE = 112

Float64 = NDArray[np.float64]

ARCFACE_TEMPLATE: tuple[tuple[float, float], ...] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Eyes, nose and corners of the mouth in the 112x112 faces of ArcFace's training."""

# Landmarks closer together than this (root mean square distance from their centre, in pixels) define no size
# or direction.
_LEAST_SPREAD = 1.0
_LEAST_SCALE = float(np.finfo(np.float32).eps)
_TARGET_MIDDLE = sum(complex(x, y) for x, y in ARCFACE_TEMPLATE) / len(ARCFACE_TEMPLATE)
_TARGETS = [complex(x, y) - _TARGET_MIDDLE for x, y in ARCFACE_TEMPLATE]


def align_faces(image: Image, found: Detections) -> NDArray[np.uint8]:
    """Return uint8[n, 112, 112, 3], the faces aligned to ArcFace's template.

    A face without landmarks, or with landmarks that are degenerate or not finite, is the square of its
    box (`crop_faces`). Pixels outside the image are black, as in ArcFace's training.
    """
    if found.landmarks is None or not len(found):
        return crop_faces(image, found.boxes)
    transforms = similarity_transforms(found.landmarks)
    faces = np.empty((len(found), FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)
    for row, transform in enumerate(transforms):
        if np.isfinite(transform).all():
            cv2.warpAffine(
                image, transform, (FACE_SIZE, FACE_SIZE), faces[row], cv2.INTER_LINEAR, cv2.BORDER_CONSTANT
            )
        else:
            faces[row] = crop_faces(image, found.boxes[row : row + 1])[0]
    return faces


def similarity_transforms(landmarks: Float32) -> Float64:
    """Return float64[n, 2, 3], the similarities to ArcFace's template.

    Each maps a face's `landmarks`, float32[n, 5, 2] in pixels. Degenerate landmarks have rows of NaN.

    This is the least-squares similarity of Umeyama (1991). In the plane a rotation with a scale is a
    product with one complex number; its best value is a plain regression, sum(conj(z) w) / sum(|z|^2) of
    the centred points.
    """
    transforms = np.full((len(landmarks), 2, 3), np.nan)
    # Few faces of five points: plain arithmetic costs less than arrays do.
    for row, face in enumerate(landmarks.tolist()):
        points = [complex(x, y) for x, y in face]
        middle = sum(points) / len(points)
        centred = [point - middle for point in points]
        spread = sum(z.real * z.real + z.imag * z.imag for z in centred)
        if not len(points) * _LEAST_SPREAD**2 <= spread < math.inf:
            continue
        turn = sum(z.conjugate() * w for z, w in zip(centred, _TARGETS, strict=True)) / spread
        # Mirrored or scattered points can pull the best scale to nothing, which has no inverse.
        if abs(turn) >= _LEAST_SCALE:
            shift = _TARGET_MIDDLE - turn * middle
            transforms[row] = (
                (turn.real, -turn.imag, shift.real),
                (turn.imag, turn.real, shift.imag),
            )
    return transforms


def crop_faces(image: Image, boxes: Float32, padding: float = 0.0) -> NDArray[np.uint8]:
    """Return uint8[n, 112, 112, 3], a square around each of `boxes`.

    `boxes` is float32[n, 4], xywh in pixels of `image`. `padding` widens the square on each side, as a share
    of the box. Pixels outside the image repeat its edge. Raises ValueError for a box without an area or with
    numbers that are not finite.
    """
    faces = np.empty((len(boxes), FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)
    for row, (x, y, width, height) in enumerate(boxes.astype(np.float64)):
        side = max(width, height) * (1 + 2 * padding)
        if not (np.isfinite((x, y, side)).all() and min(width, height) > 0):
            raise ValueError(f"a face box has finite numbers and an area, this one is {boxes[row].tolist()}")
        scale = FACE_SIZE / side
        # Pixel centres lie at halves: the middle of the box falls on the middle of the crop.
        shift_x = FACE_SIZE / 2 - scale * (x + width / 2) + scale / 2 - 0.5
        shift_y = FACE_SIZE / 2 - scale * (y + height / 2) + scale / 2 - 0.5
        matrix = np.array([[scale, 0.0, shift_x], [0.0, scale, shift_y]])
        faces[row] = cv2.warpAffine(
            image, matrix, (FACE_SIZE, FACE_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return faces
