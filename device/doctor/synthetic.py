"""Draw a reproducible picture without faces, and boxes in it that stand for faces."""

import numpy as np

from device.vision.capture.sources import Image
from device.vision.detectors.detector import Detections
from device.vision.detectors.geometry import ARCFACE_POINTS, FACE_SIZE

WIDTH, HEIGHT = 640, 480
_WAVES = 24
_SEED = 480
_FACE_SIDE = 120


def synthetic_frame() -> Image:
    """Return uint8[480, 640, 3]: coloured waves in random directions with some grain."""
    random = np.random.RandomState(_SEED)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH
    frame = np.zeros((HEIGHT, WIDTH, 3))
    for _ in range(_WAVES):
        across, down, shift = random.uniform(-60, 60), random.uniform(-60, 60), random.uniform(0, 6.3)
        frame += np.sin(across * x + down * y + shift)[..., None] * random.uniform(-12, 12, 3)
    frame += random.normal(128, 6, frame.shape)
    picture: Image = np.clip(frame, 0, 255).astype(np.uint8)
    return picture


def synthetic_faces(count: int, image: Image) -> Detections:
    """Return `count` squares in a row, each with the landmarks of a frontal face."""
    height, width = image.shape[:2]
    side = min(_FACE_SIDE, height, width)
    room = np.linspace(0, width - side, count + 2)[1:-1]
    boxes = np.array([[left, (height - side) / 2, side, side] for left in room], dtype=np.float32)
    points = np.array(ARCFACE_POINTS.template, dtype=np.float32) * (side / FACE_SIZE)
    return Detections(
        boxes.reshape(count, 4), np.ones(count, dtype=np.float32), boxes[:, None, :2] + points[None]
    )
