"""Embed the photos of a set, and leave out those that would flatter the figures."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device.vision.photos.decoding import decode_photo
from device.vision.photos.errors import PhotoError
from fleet.errors import FileRefusedError
from fleet.model.measures.pair_scores import Float32, Subjects
from fleet.readers.files import read_photo

from .face_reader import CameraFace, FaceReader
from .photo_set import LeftOut, PhotoSet

_SAME_PICTURE = "same-picture"
_SHARED_PICTURE = "picture-of-two"
_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class SampledFaces:
    """The faces of the photos that are measured.

    Row i of `vectors` (float32[n, d]), `subjects` and `names` is photo `positions[i]` of the set.
    `enrolled` has the vectors of enrollments by the same photos, with zeros for a refused one. `not_found`
    and `gated` count the reasons of photos without a vector; `milliseconds` has a list per stage.
    """

    vectors: Float32
    enrolled: Float32
    subjects: Subjects
    names: tuple[str, ...]
    positions: tuple[int, ...]
    read: int
    not_found: Counter[str]
    gated: Counter[str]
    left_out: tuple[LeftOut, ...]
    milliseconds: dict[str, list[float]]

    def select(self, rows: list[int]) -> "SampledFaces":
        """Return the faces of these rows."""
        return SampledFaces(
            self.vectors[rows],
            self.enrolled[rows],
            self.subjects[rows],
            tuple(self.names[row] for row in rows),
            tuple(self.positions[row] for row in rows),
            self.read,
            self.not_found,
            self.gated,
            self.left_out,
            self.milliseconds,
        )


class PhotoSampling:
    """The photos read so far, without the same picture twice."""

    def __init__(self, photos: PhotoSet, reader: FaceReader, dimension: int) -> None:
        self._set = photos
        self._reader = reader
        self._dimension = dimension
        self._first_of: dict[str, int] = {}
        self._shared: set[int] = set()
        self._left_out = list(photos.left_out)
        self._faces: dict[int, tuple[CameraFace, Float32 | None]] = {}

    def sample(self, tick: Callable[[], None]) -> SampledFaces:
        """Return the faces of all photos; `tick` is called after each."""
        for position in range(len(self._set.photos)):
            self._read(position)
            tick()
        for position in self._shared:
            self._faces.pop(position, None)
        return self._collect()

    def _read(self, position: int) -> None:
        photo = self._set.photos[position]
        try:
            data, _ = read_photo(photo.file)
            image = decode_photo(data)
        except (FileRefusedError, PhotoError) as error:
            reason = error.detail if isinstance(error, PhotoError) else str(error)
            self._left_out.append(LeftOut(photo.name, _UNREADABLE, reason))
            return
        # The pixels, so that a copy with other metadata is the same picture.
        digest = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
        first = self._first_of.setdefault(digest, position)
        if first != position:
            self._leave_out_copy(position, first)
            return
        self._faces[position] = (self._reader.as_camera(image), self._reader.as_enrolled(data))

    def _leave_out_copy(self, position: int, first: int) -> None:
        photo, other = self._set.photos[position], self._set.photos[first]
        if photo.subject == other.subject:
            reason = f"it is the same picture as {other.name}"
            self._left_out.append(LeftOut(photo.name, _SAME_PICTURE, reason))
            return
        for one, two in ((photo, other), (other, photo)):
            reason = f"it is the same picture as {two.name}, of another person: one of the folders is wrong"
            if one is photo or first not in self._shared:
                self._left_out.append(LeftOut(one.name, _SHARED_PICTURE, reason))
        self._shared.add(first)

    def _collect(self) -> SampledFaces:
        not_found, gated, milliseconds = Counter[str](), Counter[str](), defaultdict[str, list[float]](list)
        vectors, enrolled, positions = [], [], []
        for position, (face, template) in self._faces.items():
            if face.vector is None:
                (gated if face.is_gated else not_found)[str(face.reason)] += 1
                continue
            vectors.append(face.vector)
            enrolled.append(np.zeros(self._dimension, np.float32) if template is None else template)
            positions.append(position)
            for stage, spent in face.milliseconds.items():
                milliseconds[stage].append(spent)
        shape = (len(positions), self._dimension)
        photos = [self._set.photos[position] for position in positions]
        return SampledFaces(
            np.array(vectors, dtype=np.float32).reshape(shape),
            np.array(enrolled, dtype=np.float32).reshape(shape),
            np.array([photo.subject for photo in photos], dtype=np.int32),
            tuple(photo.name for photo in photos),
            tuple(positions),
            len(self._set.photos),
            not_found,
            gated,
            tuple(self._left_out),
            dict(milliseconds),
        )
