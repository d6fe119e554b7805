"""Faces in a picture, by OpenCV's bundled frontal cascade unless a model is configured."""

from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .sources import Image

Float32 = NDArray[np.float32]


class FaceBox(NamedTuple):
    """A face in whole pixels of its frame."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Detections:
    """Faces of one picture: `boxes` float32[n, 4] as x, y, width, height in pixels, `scores` float32[n],
    `landmarks` float32[n, 5, 2] in pixels where the model gives them. Raises ValueError for other shapes."""

    boxes: Float32
    scores: Float32
    landmarks: Float32 | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        _check("boxes", self.boxes, (count, 4))
        _check("scores", self.scores, (count,))
        if self.landmarks is not None:
            _check("landmarks", self.landmarks, (count, 5, 2))

    def __len__(self) -> int:
        return len(self.boxes)

    def face_box(self, row: int) -> FaceBox:
        """Row `row` in whole pixels."""
        return FaceBox(*(round(float(value)) for value in self.boxes[row]))


def _check(name: str, array: Float32, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{name} are float32{list(shape)}, these are {array.dtype}{list(np.shape(array))}")


class Detector(Protocol):
    def detect(self, image: Image) -> Detections:
        """The faces in `image`, uint8[h, w, 3] BGR."""


class CascadeDetector:
    """OpenCV's `haarcascade_frontalface_default` (Viola and Jones 2001): frontal faces, no landmarks.

    `scores` rank by how many overlapping windows agreed, n / (n + 10); they are no probabilities. Faces
    under `min_face_pixels` are not looked for, which is what keeps it fast.
    """

    def __init__(
        self, *, min_face_pixels: int = 80, scale_factor: float = 1.15, min_neighbours: int = 4
    ) -> None:
        file = resources.files("cv2") / "data" / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(file))
        if self._cascade.empty():
            raise FileNotFoundError(
                f"{file} is missing: install opencv-python-headless 4.10 or newer, below 5"
            )
        self._min_size = (min_face_pixels, min_face_pixels)
        self._scale_factor = scale_factor
        self._min_neighbours = min_neighbours

    def detect(self, image: Image) -> Detections:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        boxes, counts = self._cascade.detectMultiScale2(
            grey, self._scale_factor, self._min_neighbours, minSize=self._min_size
        )
        agreed = np.asarray(counts, dtype=np.float32).reshape(-1)
        return Detections(
            boxes=np.asarray(boxes, dtype=np.float32).reshape(-1, 4), scores=agreed / (agreed + 10)
        )
