"""Detections of faces in an image, and the protocol of detectors."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from device.vision.capture.sources import Image

from .geometry import ARCFACE_POINTS, CASCADE_FRAME, BoxFrame, LandmarkLayout

Float32 = NDArray[np.float32]

# A box with shorter sides within the image has no usable pixels.
_LEAST_SIDE = 1.0


class FaceBox(NamedTuple):
    """A face in whole pixels of its frame."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Detections:
    """Faces of one image.

    `boxes` is float32[n, 4] as x, y, width, height in pixels, `scores` float32[n]. `landmarks` is
    float32[n, 5, 2] in pixels, None without any; `layout` says which points they are, `frame` where ArcFace's
    frame lies around a box. Raises ValueError for other shapes.
    """

    boxes: Float32
    scores: Float32
    landmarks: Float32 | None = None
    layout: LandmarkLayout = ARCFACE_POINTS
    frame: BoxFrame = CASCADE_FRAME

    def __post_init__(self) -> None:
        count = len(self.boxes)
        _check("boxes", self.boxes, (count, 4))
        _check("scores", self.scores, (count,))
        if self.landmarks is not None:
            _check("landmarks", self.landmarks, (count, 5, 2))

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: NDArray[np.intp]) -> "Detections":
        """Return the detections in these rows."""
        landmarks = None if self.landmarks is None else self.landmarks[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], landmarks=landmarks)

    def face_box(self, row: int) -> FaceBox:
        """Return box `row` in whole pixels."""
        return FaceBox(*(round(float(value)) for value in self.boxes[row]))

    def clip_to(self, image: Image, *, min_side: float = 0.0) -> "Detections":
        """Return the usable detections, with boxes clipped to `image`.

        Boxes that are not finite, lie outside, or have a longer side below `min_side` pixels are dropped.
        Landmarks are not clipped: an eye beyond the edge may be right.
        """
        height, width = image.shape[:2]
        wide = self.boxes.astype(np.float64)
        finite = np.isfinite(wide).all(axis=1) & np.isfinite(self.scores)
        wide[~finite] = 0.0
        corners = np.concatenate([wide[:, :2], wide[:, :2] + wide[:, 2:]], axis=1)
        corners = np.clip(corners, 0.0, (width, height, width, height))
        sides = corners[:, 2:] - corners[:, :2]
        kept = finite & (sides.min(axis=1) >= _LEAST_SIDE) & (sides.max(axis=1) >= min_side)
        boxes = np.concatenate([corners[:, :2], sides], axis=1).astype(np.float32)
        return replace(self, boxes=boxes).select(np.flatnonzero(kept))

    @classmethod
    def empty(cls, *, landmarks: bool = False) -> "Detections":
        """Return no detections, with an empty array of `landmarks` on request."""
        points = np.empty((0, 5, 2), dtype=np.float32) if landmarks else None
        return cls(np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.float32), points)


def _check(name: str, array: Float32, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{name} are float32{list(shape)}, these are {array.dtype}{list(np.shape(array))}")


class Detector(Protocol):
    """A face detector, used by one thread at a time."""

    @property
    def name(self) -> str:
        """The detector's name: `cascade`, `scrfd` or `yunet`.

        Seed 003's column `enrolled_users.detector` has these values.
        """
        ...

    def detect(self, image: Image) -> Detections:
        """Return the faces in `image`, uint8[h, w, 3] BGR.

        Faces are finite, have an area and lie within the image. An image without pixels has none. Raises
        ValueError for another array, ModelError when the network fails.
        """
        ...


def has_pixels(image: Image) -> bool:
    """Return whether `image` has pixels.

    Raises ValueError unless it is uint8[h, w, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"a frame is uint8[h, w, 3] in BGR, this one is {image.dtype}{list(image.shape)}: "
            "have the camera or its pipeline convert it to BGR"
        )
    return image.size > 0
