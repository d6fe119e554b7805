"""Read the face of a photo as a camera and as an enrollment do.

Both go through the product's own lines.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from device.vision.alignment import align_faces, frame_squares
from device.vision.capture.sources import Image
from device.vision.detectors.detector import Detections, Detector
from device.vision.detectors.geometry import EYE_CORNER_POINTS, PREDICTOR_FRAMES
from device.vision.embedder import Embedder
from device.vision.landmarks import LandmarkPredictor
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.photos.errors import PhotoError
from device.vision.quality import QualityGate
from fleet.model.measures.pair_scores import Float32

# A camera's picture has surroundings, which a portrait cut close to the face lacks; and it has at most so
# many pixels, or the cascade would search a photo for seconds.
_LONG_SIDE = 1280
_SURROUNDINGS = 4
# A face narrower than this share of the widest is background or a false detection.
_LEAST_SHARE_OF_WIDEST = 0.5

NO_FACE = "no-face"
SEVERAL_FACES = "several-faces"
NO_VECTOR = "no-vector"


@dataclass(frozen=True)
class CameraFace:
    """What a camera makes of a photo.

    `vector` is float32[d] of unit length; None with the `reason`: no face, several, no vector, or that of the
    quality gate (`is_gated`). `milliseconds` is per stage.
    """

    vector: Float32 | None
    reason: str | None
    is_gated: bool
    milliseconds: dict[str, float]


class FaceReader:
    """The stages of a camera and the embedder of photos, of one model."""

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder,
        quality: QualityGate,
        *,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._detector = detector
        self._embedder = embedder
        self._quality = quality
        self._predictor = LandmarkPredictor()
        self._photos = PhotoEmbedder(detector, embedder)
        self._timer = timer

    def as_camera(self, photo: Image) -> CameraFace:
        """Return the face in `photo`, uint8[h, w, 3], found and embedded as in a frame."""
        frame = to_frame(photo)
        spent: dict[str, float] = {}
        since = self._timer()

        def end(stage: str) -> None:
            nonlocal since
            now = self._timer()
            spent[stage] = (now - since) * 1000
            since = now

        found = largest(self._detector.detect(frame))
        end("detect")
        if found.landmarks is not None and found.layout is EYE_CORNER_POINTS and len(found):
            # The detector predicted them with the rest: once more, for their time.
            self._predictor.predict(frame, frame_squares(found.boxes, PREDICTOR_FRAMES[found.frame]))
            end("landmarks")
            spent["detect"] -= spent["landmarks"]
        if len(found) != 1:
            return CameraFace(None, SEVERAL_FACES if len(found) else NO_FACE, False, {})
        aligned = align_faces(frame, found)
        end("align")
        complaint = self._quality.check_quality(aligned, found)[0]
        end("quality")
        if complaint:
            return CameraFace(None, complaint, True, {})
        vector = self._embedder.embed(aligned)[0]
        end("embed")
        return (
            CameraFace(vector, None, False, spent) if vector.any() else CameraFace(None, NO_VECTOR, False, {})
        )

    def as_enrolled(self, data: bytes) -> Float32 | None:
        """Return the vector of an enrollment by this photo, float32[d].

        None if the photo is refused.
        """
        try:
            return np.frombuffer(self._photos.embed_photo(data).vector, dtype="<f4")
        except PhotoError:
            return None


def to_frame(photo: Image) -> Image:
    """Return `photo` as a part of a camera's picture.

    It has surroundings, and is no larger than a frame.
    """
    shrink = _LONG_SIDE / max(photo.shape[:2])
    if shrink < 1:
        size = (max(1, round(photo.shape[1] * shrink)), max(1, round(photo.shape[0] * shrink)))
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    side = max(photo.shape[:2]) // _SURROUNDINGS
    bordered = cv2.copyMakeBorder(photo, side, side, side, side, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(bordered, dtype=np.uint8)


def largest(found: Detections) -> Detections:
    """Return the faces at least half as wide as the widest."""
    if not len(found):
        return found
    widths = found.boxes[:, 2]
    return found.select(np.flatnonzero(widths >= _LEAST_SHARE_OF_WIDEST * widths.max()))
