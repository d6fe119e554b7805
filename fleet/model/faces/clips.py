"""Make short clips of photos, with a face that moves and is lit as at a door."""

from collections.abc import Iterator

import cv2
import numpy as np

from device.vision.capture.sources import Image
from device.vision.detectors.detector import FaceBox

FRAMES = 20
FRAMES_PER_SECOND = 10.0
_WIDTH, _HEIGHT = 640, 480
_FACE_WIDTH = 150.0
# Ranges of the movement: shares of the face's width, degrees, factors, grey levels.
_SHIFT, _TURN, _GROWTH, _LIGHT, _NOISE = 0.15, 4.0, 0.1, 0.12, 3.0


def clip_of(photo: Image, box: FaceBox, seed: int) -> Iterator[Image]:
    """Yield FRAMES frames, uint8[480, 640, 3], of the face in `box`.

    The face is 150 pixels wide, the width at one to two metres from a camera. The same `seed` gives the same
    clip.
    """
    random = np.random.default_rng(seed)
    start, end = random.uniform(-1, 1, (2, 5))
    # Reduced first, since a warp reads four pixels only.
    shrink = min(1.0, 1.5 * _FACE_WIDTH / box.width)
    size = (round(photo.shape[1] * shrink), round(photo.shape[0] * shrink))
    image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    centre = ((box.x + box.width / 2) * shrink, (box.y + box.height / 2) * shrink)
    for share in np.linspace(0, 1, FRAMES).tolist():
        # From one place to another, with a tremble.
        right, down, turn, growth, light = start + (end - start) * share + random.normal(0, 0.05, 5)
        scale = _FACE_WIDTH / (box.width * shrink) * (1 + _GROWTH * growth)
        matrix = cv2.getRotationMatrix2D(centre, _TURN * turn, scale)
        matrix[0, 2] += _WIDTH / 2 + _SHIFT * _FACE_WIDTH * right - centre[0]
        matrix[1, 2] += _HEIGHT / 2 + _SHIFT * _FACE_WIDTH * down - centre[1]
        moved = cv2.warpAffine(image, matrix, (_WIDTH, _HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        noise = random.standard_normal(moved.shape, dtype=np.float32) * np.float32(_NOISE)
        lit = moved * np.float32(1 + _LIGHT * light) + noise
        yield np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)
