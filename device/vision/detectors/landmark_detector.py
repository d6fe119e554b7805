"""Give landmarks to a detector that has none, or take them away."""

from dataclasses import replace

from device.vision.alignment import frame_squares
from device.vision.capture.sources import Image
from device.vision.landmarks import LandmarkPredictor

from .detector import Detections, Detector
from .geometry import EYE_CORNER_POINTS, PREDICTOR_FRAMES


class LandmarkDetector:
    """A detector of boxes, whose faces have predicted landmarks.

    The frames of its faces must be among `PREDICTOR_FRAMES`.
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
        squares = frame_squares(found.boxes, PREDICTOR_FRAMES[found.frame])
        return replace(found, landmarks=self._predictor.predict(image, squares), layout=EYE_CORNER_POINTS)


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
