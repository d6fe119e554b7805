"""Embed the face of a photo. The photo is decoded in memory and not kept."""

from dataclasses import dataclass

from broker_bridge.contract.embeddings import normalise

from .alignment import align_faces
from .detectors.detector import Detector, FaceBox
from .embedder import Embedder
from .photos.advice import PhotoWarning, advise
from .photos.decoding import decode_photo
from .photos.errors import PHOTO_NO_FACE, PHOTO_POOR, PhotoError
from .photos.face_search import PhotoSearch
from .photos.tones import judge_tones
from .quality import face_quality


@dataclass(frozen=True)
class PhotoFace:
    """The only face of a photo.

    `vector` is little-endian float32[d] of unit length, `quality` 0..1 (size times sharpness times tones),
    `box` in pixels of the photo. `warnings` say what would make a better photo.
    """

    vector: bytes
    quality: float
    box: FaceBox
    warnings: tuple[PhotoWarning, ...] = ()


class PhotoEmbedder:
    """The embedder of the only face of a photo, with the code of cameras."""

    def __init__(self, detector: Detector, embedder: Embedder) -> None:
        self._search = PhotoSearch(detector)
        self._embedder = embedder

    @property
    def embedder(self) -> Embedder:
        return self._embedder

    def embed_photo(self, data: bytes) -> PhotoFace:
        """Return the face in `data`, a JPEG, PNG or WebP of at most 50 megapixels.

        Raises PhotoError.
        """
        photo = decode_photo(data)
        seen = self._search.find_face(photo)
        face = align_faces(seen.image, seen.found)
        vector = self._embedder.embed(face)[0]
        if not vector.any():
            raise PhotoError(
                PHOTO_NO_FACE, "what was found in the photo has too little contrast to be a face"
            )
        tones = judge_tones(photo, seen.box)
        complaint = tones.complaint()
        if complaint:
            raise PhotoError(PHOTO_POOR, complaint)
        return PhotoFace(
            vector=normalise(vector, self._embedder.space.dimension),
            quality=face_quality(face[0], seen.found.boxes[0] / max(seen.scale, 1.0)) * tones.quality,
            box=seen.box,
            warnings=advise(face[0], seen.found, min(seen.box.width, seen.box.height), tones),
        )
