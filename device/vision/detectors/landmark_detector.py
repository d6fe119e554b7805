"""Give landmarks to a detector that has none, or take them away."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device.vision.alignment import frame_squares
from device.vision.capture.sources import Image
from device.vision.landmarks import LandmarkPredictor

from .detector import Detections, Detector, Float32
from .geometry import EYE_CORNER_POINTS, PREDICTOR_FRAMES

# Under this score, forty windows of the cascade, a find is doubtful.
_DOUBTFUL_SCORE = 0.8
# The landmarks of a face are found again from these starts, in sides of the box, and move by less than this.
_OTHER_STARTS = (0.85, 1.2)
_MOST_MOVED = 0.03


class LandmarkDetector:
    """A detector of boxes, whose faces have predicted landmarks.

    The frames of its faces must be among `PREDICTOR_FRAMES`. A find counts if its score is high, or its
    landmarks stay where they are when the search for them starts from a smaller and from a larger square: of
    27 false finds of the cascade this drops 20, and 1 of 430 faces, blurred, dark, grainy and tilted ones
    among them.
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
        landmarks = self._predict(image, found, (1.0,))[0]
        found = replace(found, landmarks=landmarks, layout=EYE_CORNER_POINTS)
        doubtful = np.flatnonzero(found.scores < _DOUBTFUL_SCORE)
        if not len(doubtful):
            return found
        are_moved = self._are_moved(image, found.select(doubtful), landmarks[doubtful])
        return found.select(np.setdiff1d(np.arange(len(found)), doubtful[are_moved]))

    def _predict(self, image: Image, found: Detections, starts: tuple[float, ...]) -> Float32:
        """Return float32[starts, n, 5, 2], the landmarks from squares of other sizes.

        A start is so many times the usual side.
        """
        frame = PREDICTOR_FRAMES[found.frame]
        squares = [frame_squares(found.boxes, replace(frame, scale=frame.scale * start)) for start in starts]
        landmarks = self._predictor.predict(image, np.concatenate(squares))
        return landmarks.reshape(len(starts), len(found), 5, 2)

    def _are_moved(self, image: Image, found: Detections, landmarks: Float32) -> NDArray[np.bool_]:
        """Return bool[n], which faces have other landmarks from other starts."""
        moves = self._predict(image, found, _OTHER_STARTS) - landmarks
        distances = np.sqrt((moves**2).sum(axis=3).mean(axis=2)).max(axis=0)
        return np.asarray(distances > _MOST_MOVED * found.boxes[:, 2:].max(axis=1))


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
