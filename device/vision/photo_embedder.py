"""Embed the face of a photo. The photo is decoded in memory and not kept."""

from dataclasses import dataclass

import cv2
import numpy as np

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError

from .alignment import align_faces
from .capture.sources import Image
from .detectors.detector import Detections, Detector, FaceBox
from .embedder import Embedder
from .picture_size import picture_size
from .quality import face_quality

PHOTO_INVALID = "photo-invalid"
PHOTO_NO_FACE = "photo-no-face"
PHOTO_SEVERAL_FACES = "photo-several-faces"

MAX_PIXELS = 50_000_000
# Before the search for a face, larger photos are reduced to this and smaller ones enlarged.
_LONG_SIDE = 960
_SHORT_SIDE = 640
# A face narrower than this share of the widest is background or a false detection.
_LEAST_SHARE_OF_WIDEST = 0.5


class PhotoError(ContractError):
    """An unusable photo: `photo-invalid`, `photo-no-face` or `photo-several-faces`."""


@dataclass(frozen=True)
class PhotoFace:
    """The only face of a photo.

    `vector` is little-endian float32[d] of unit length, `quality` 0..1 (size times sharpness), `box` in
    pixels of the photo.
    """

    vector: bytes
    quality: float
    box: FaceBox


class PhotoEmbedder:
    """The embedder of the only face of a photo, with the code of cameras."""

    def __init__(self, detector: Detector, embedder: Embedder) -> None:
        self._detector = detector
        self._embedder = embedder

    @property
    def embedder(self) -> Embedder:
        return self._embedder

    def embed_photo(self, data: bytes) -> PhotoFace:
        """Return the face in `data`, a JPEG or PNG of at most 50 megapixels.

        Raises PhotoError.
        """
        photo = decode_photo(data)
        scale = _search_scale(photo)
        image = _resize(photo, scale)
        found = self._one_face(image)
        face = align_faces(image, found)
        vector = self._embedder.embed(face)[0]
        if not vector.any():
            raise PhotoError(
                PHOTO_NO_FACE, "what was found in the photo has too little contrast to be a face"
            )
        return PhotoFace(
            vector=normalise(vector, self._embedder.space.dimension),
            quality=face_quality(face[0], found.boxes[0] / max(scale, 1.0)),
            box=FaceBox(*(round(float(value) / scale) for value in found.boxes[0])),
        )

    def _one_face(self, image: Image) -> Detections:
        """Return the only large face in `image`. Raises PhotoError."""
        # The cascade needs surroundings, which a portrait cut close to the face lacks.
        margin = max(image.shape[:2]) // 4
        sides = (margin, margin, margin, margin)
        bordered = cv2.copyMakeBorder(image, *sides, borderType=cv2.BORDER_REPLICATE)
        found = _large(self._detector.detect(np.asarray(bordered, dtype=np.uint8)))
        if not len(found):
            raise PhotoError(PHOTO_NO_FACE, "no face was found: use a frontal portrait with an even light")
        if len(found) > 1:
            raise PhotoError(
                PHOTO_SEVERAL_FACES, f"{len(found)} faces were found: use a photo of one person alone"
            )
        boxes = found.boxes - np.array([margin, margin, 0, 0], dtype=np.float32)
        landmarks = None if found.landmarks is None else found.landmarks - np.float32(margin)
        return Detections(boxes, found.scores, landmarks)


def decode_photo(data: bytes) -> Image:
    """Return uint8[h, w, 3] BGR of a JPEG or PNG, turned upright.

    Raises PhotoError(`photo-invalid`).
    """
    size = picture_size(data)
    if size is None:
        raise PhotoError(PHOTO_INVALID, "a photo is a JPEG or a PNG file")
    width, height = size
    if width * height > MAX_PIXELS:
        raise PhotoError(
            PHOTO_INVALID,
            f"a photo has at most {MAX_PIXELS // 1_000_000} megapixels, this is {width}x{height}",
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PhotoError(PHOTO_INVALID, "the photo is damaged and cannot be decoded") from error
    if image is None:
        raise PhotoError(PHOTO_INVALID, "the photo is damaged and cannot be decoded")
    return np.asarray(image, dtype=np.uint8)


def _search_scale(photo: Image) -> float:
    height, width = photo.shape[:2]
    enlarge = max(1.0, _SHORT_SIDE / min(height, width))
    scale: float = min(_LONG_SIDE / max(height, width), enlarge)
    return scale


def _resize(photo: Image, scale: float) -> Image:
    if scale == 1.0:
        return photo
    height, width = photo.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photo, size, interpolation=how), dtype=np.uint8)


def _large(found: Detections) -> Detections:
    """Return the faces at least half as wide as the widest."""
    if not len(found):
        return found
    widths = found.boxes[:, 2]
    large = widths >= _LEAST_SHARE_OF_WIDEST * widths.max()
    landmarks = None if found.landmarks is None else found.landmarks[large]
    return Detections(found.boxes[large], found.scores[large], landmarks)
