"""From a face in a frame to the 112x112 picture that embedding models take."""

import cv2
import numpy as np
from numpy.typing import NDArray

from .detector import Float32
from .sources import Image

FACE_SIZE = 112


def crop_faces(image: Image, boxes: Float32, padding: float = 0.0) -> NDArray[np.uint8]:
    """uint8[n, 112, 112, 3]: a square round each of `boxes` (float32[n, 4], xywh in pixels of `image`).

    `padding` widens the square on each side, as a share of the box. What lies outside the picture repeats
    its edge. A box without area or without finite numbers raises ValueError.
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
