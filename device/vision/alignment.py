"""Align faces of a frame to the 112x112 images that embedding models take."""

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .capture.sources import Image
from .detectors.detector import Detections, Float32
from .detectors.geometry import ARCFACE_POINTS, CASCADE_FRAME, FACE_SIZE, BoxFrame, LandmarkLayout

Float64 = NDArray[np.float64]

# Landmarks closer together than this (root mean square distance from their centre, in pixels) define no size
# or direction.
_LEAST_SPREAD = 1.0
_LEAST_SCALE = float(np.finfo(np.float32).eps)


def align_faces(image: Image, found: Detections) -> NDArray[np.uint8]:
    """Return uint8[n, 112, 112, 3], the faces aligned to ArcFace's frame.

    A face without landmarks, or with landmarks that are degenerate or not finite, is cut by its box
    (`crop_faces`). Pixels outside the image repeat its edge.
    """
    if found.landmarks is None or not len(found):
        return crop_faces(image, found.boxes, found.frame)
    transforms = similarity_transforms(found.landmarks, found.layout)
    faces = np.empty((len(found), FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)
    for row, transform in enumerate(transforms):
        if np.isfinite(transform).all():
            _warp(image, transform, faces[row])
        else:
            faces[row] = crop_faces(image, found.boxes[row : row + 1], found.frame)[0]
    return faces


def similarity_transforms(landmarks: Float32, layout: LandmarkLayout = ARCFACE_POINTS) -> Float64:
    """Return float64[n, 2, 3], the similarities to the template of `layout`.

    Each maps a face's `landmarks`, float32[n, 5, 2] in pixels. Degenerate landmarks have rows of NaN.

    This is the least-squares similarity of Umeyama (1991). In the plane a rotation with a scale is a
    product with one complex number; its best value is a plain regression, sum(conj(z) w) / sum(|z|^2) of
    the centred points.
    """
    transforms = np.full((len(landmarks), 2, 3), np.nan)
    target_middle, targets = _targets(layout)
    # Few faces of five points: plain arithmetic costs less than arrays do.
    for row, face in enumerate(landmarks.tolist()):
        points = [complex(x, y) for x, y in face]
        middle = sum(points) / len(points)
        centred = [point - middle for point in points]
        spread = sum(z.real * z.real + z.imag * z.imag for z in centred)
        if not len(points) * _LEAST_SPREAD**2 <= spread < math.inf:
            continue
        turn = sum(z.conjugate() * w for z, w in zip(centred, targets, strict=True)) / spread
        # Mirrored or scattered points can pull the best scale to nothing, which has no inverse.
        if abs(turn) >= _LEAST_SCALE:
            shift = target_middle - turn * middle
            transforms[row] = (
                (turn.real, -turn.imag, shift.real),
                (turn.imag, turn.real, shift.imag),
            )
    return transforms


@cache
def _targets(layout: LandmarkLayout) -> tuple[complex, list[complex]]:
    """Return the middle of the template, and its points around that."""
    points = [complex(x, y) for x, y in layout.template]
    middle = sum(points) / len(points)
    return middle, [point - middle for point in points]


def crop_faces(image: Image, boxes: Float32, frame: BoxFrame = CASCADE_FRAME) -> NDArray[np.uint8]:
    """Return uint8[n, 112, 112, 3], ArcFace's frame around each of `boxes`.

    `boxes` is float32[n, 4], xywh in pixels of `image`; `frame` says where the frame lies. Pixels outside the
    image repeat its edge. Raises ValueError for a box without an area or with numbers that are not finite.
    """
    faces = np.empty((len(boxes), FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)
    squares = frame_squares(boxes, frame)
    for row, (x, y, side, _) in enumerate(squares):
        if not (np.isfinite(squares[row]).all() and boxes[row, 2:].min() > 0):
            raise ValueError(f"a face box has finite numbers and an area, this one is {boxes[row].tolist()}")
        scale = FACE_SIZE / side
        # Pixel centres lie at halves: the middle of the square falls on the middle of the crop.
        shift = scale / 2 - 0.5
        transform = np.array([[scale, 0.0, shift - scale * x], [0.0, scale, shift - scale * y]])
        _warp(image, transform, faces[row])
    return faces


def frame_squares(boxes: Float32, frame: BoxFrame) -> Float64:
    """Return float64[n, 4], the squares xywh that `frame` puts around `boxes`."""
    wide = boxes.astype(np.float64)
    longer = wide[:, 2:].max(axis=1, keepdims=True)
    sides = longer * frame.scale
    centres = wide[:, :2] + wide[:, 2:] / 2 + longer * (frame.right, frame.down)
    return np.concatenate([centres - sides / 2, sides, sides], axis=1)


def _warp(image: Image, transform: Float64, face: NDArray[np.uint8]) -> None:
    """Fill `face`, uint8[112, 112, 3], with what `transform` takes into it."""
    cv2.warpAffine(image, transform, (FACE_SIZE, FACE_SIZE), face, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
