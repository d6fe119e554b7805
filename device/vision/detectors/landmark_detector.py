"""Give landmarks to a detector that has none, or take them away."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device.vision.alignment import frame_squares
from device.vision.capture.sources import Image
from device.vision.landmarks import LandmarkPredictor

from .detector import Detections, Detector, Float32
from .geometry import EYE_CORNER_POINTS, PREDICTOR_FRAMES

# Under this score, twenty windows of the cascade, a find is doubtful.
_DOUBTFUL_SCORE = 2 / 3
# The landmarks of a face are found again from these starts, in sides of the box, and move by less than this.
_OTHER_STARTS = (0.85, 1.2)
_MOST_MOVED = 0.03


class LandmarkDetector:
    """A detector of boxes, whose faces have predicted landmarks.

    The frames of its faces must be among `PREDICTOR_FRAMES`. A find with a low score counts if its landmarks
    stay where they are when the search for them starts from a smaller and from a larger square: of 27 false
    finds of the cascade this drops 18, and none of 430 faces, blurred, dark, grainy and tilted ones among
    them.
    """

    def __init__(self, detector: Detector, predictor: LandmarkPredictor | None = None) -> None:
        self._detector = detector
        self._predictor = predictor or LandmarkPredictor()

    @property
    def name(self) -> str:
        """The name of the detector that finds the boxes."""
        return self._detector.name

    def detect(self, image: Image) -> Detections:
        """Return the faces in `image`, uint8[h, w, 3] BGR, with landmarks.

        Raises as the detector does.
        """
        found = self._detector.detect(image)
        landmarks = self._predict(image, found, 1.0)
        found = replace(found, landmarks=landmarks, layout=EYE_CORNER_POINTS)
        doubtful = np.flatnonzero(found.scores < _DOUBTFUL_SCORE)
        if not len(doubtful):
            return found
        is_moved = self._are_moved(image, found.select(doubtful), landmarks[doubtful])
        return found.select(np.setdiff1d(np.arange(len(found)), doubtful[is_moved]))

    def _predict(self, image: Image, found: Detections, start: float) -> Float32:
        frame = PREDICTOR_FRAMES[found.frame]
        squares = frame_squares(found.boxes, replace(frame, scale=frame.scale * start))
        return self._predictor.predict(image, squares)

    def _are_moved(self, image: Image, found: Detections, landmarks: Float32) -> NDArray[np.bool_]:
        """Return bool[n], which faces have other landmarks from other starts."""
        starts = [self._predict(image, found, start) for start in _OTHER_STARTS]
        moves = np.sqrt(((np.stack(starts) - landmarks) ** 2).sum(axis=3).mean(axis=2))
        return np.asarray(moves.max(axis=0) > _MOST_MOVED * found.boxes[:, 2:].max(axis=1))


class BoxDetector:
    """A detector whose faces are boxes alone, for spaces that are aligned by boxes."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @property
    def name(self) -> str:
        """The name of the detector that finds the boxes."""
        return self._detector.name

    def detect(self, image: Image) -> Detections:
        """Return the faces in `image`, uint8[h, w, 3] BGR, without landmarks.

        Raises as the detector does.
        """
        return replace(self._detector.detect(image), landmarks=None)
