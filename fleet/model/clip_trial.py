"""Recognise clips of photos with the pipeline of a camera.

Half of the photos of each person are enrolled, the others walk past. In each of four rounds a quarter of the
people are strangers, so that everyone is one once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import SpaceLimits
from device.events.event_validator import EventValidator
from device.recognition.pipeline import RecognitionPipeline
from device.settings import QualitySettings
from device.timing.clocks import FrameClock
from device.vision.capture.camera import Frame
from device.vision.capture.sources import Image
from device.vision.detectors.detector import Detections, Detector
from device.vision.embedder import Embedder
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.photos.decoding import decode_photo
from device.vision.quality import QualityGate
from device.vision.tracker import FaceTracker
from fleet.readers.files import read_photo

from .faces.clips import FRAMES_PER_SECOND, clip_of
from .faces.face_reader import largest, to_frame
from .faces.photo_set import PhotoSet
from .faces.sampling import SampledFaces
from .measures.searches import SearchOutcome

ROUNDS = 4


@dataclass
class _Remembered:
    """Detector and embedder that do their work on a picture once for all rounds."""

    detector: Detector
    embedder: Embedder
    found: dict[int, Detections] = field(default_factory=dict)
    vectors: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.detector.name

    @property
    def space(self) -> EmbeddingSpace:
        return self.embedder.space

    def detect(self, image: Image) -> Detections:
        if id(image) not in self.found:
            self.found[id(image)] = self.detector.detect(image)
        return self.found[id(image)]

    def embed(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        key = faces.tobytes()
        if key not in self.vectors:
            self.vectors[key] = self.embedder.embed(faces)
        return self.vectors[key]


class ClipTrial:
    """Clips of the faces that were sampled from a set of photos."""

    def __init__(
        self,
        photos: PhotoSet,
        faces: SampledFaces,
        detector: Detector,
        embedder: Embedder,
        limits: SpaceLimits,
    ) -> None:
        self._photos = photos
        self._faces = faces
        self._detector = detector
        self._embedder = embedder
        self._limits = limits
        self._is_enrolled = _first_halves(faces)

    @property
    def clips(self) -> list[int]:
        """The rows of the faces that are not enrolled, each a clip."""
        return [int(row) for row in np.flatnonzero(~self._is_enrolled)]

    def run_trial(self, tick: Callable[[], None]) -> SearchOutcome:
        """Return how the clips of all rounds end; `tick` is called after each clip."""
        galleries = [GalleryHolder(self._gallery(number)) for number in range(ROUNDS)]
        counts = dict.fromkeys(("right", "wrong", "unknown", "taken", "refused"), 0)
        for row in self.clips:
            frames = self._frames(row)
            parts = _Remembered(self._detector, self._embedder)
            own = str(self._faces.subjects[row])
            for holder in galleries:
                names = self._recognise(frames, holder, parts)
                if own in holder.current.user_ids:
                    counts["wrong" if names - {own} else "right" if names else "unknown"] += 1
                else:
                    counts["taken" if names else "refused"] += 1
            tick()
        return SearchOutcome(**counts)

    def _gallery(self, number: int) -> Gallery:
        """Return the enrolled people of a round; every fourth subject is a stranger."""
        rows = np.flatnonzero(self._is_enrolled & (self._faces.subjects % ROUNDS != number))
        names = [str(subject) for subject in self._faces.subjects[rows]]
        return Gallery(self._embedder.space, names, self._faces.enrolled[rows])

    def _frames(self, row: int) -> Sequence[Frame]:
        photo = self._photos.photos[self._faces.positions[row]]
        image = to_frame(decode_photo(read_photo(photo.file)[0]))
        box = largest(self._detector.detect(image)).face_box(0)
        return [
            Frame(picture, index, index / FRAMES_PER_SECOND)
            for index, picture in enumerate(clip_of(image, box, row))
        ]

    def _recognise(self, frames: Sequence[Frame], galleries: GalleryHolder, parts: _Remembered) -> set[str]:
        """Return the identities that events of a clip name."""
        clock = FrameClock()
        validator = EventValidator(
            "clip",
            distance_threshold=self._limits.distance,
            min_margin=self._limits.margin,
            unknown_events=True,
            clock=clock,
        )
        pipeline = RecognitionPipeline(
            parts,
            FaceTracker(),
            parts,
            galleries,
            validator,
            quality=QualityGate(QualitySettings()),
            clock=clock,
        )
        events = [event for frame in frames for event, _ in pipeline.process(frame).events]
        return {event.user_id for event in events if event.user_id is not None}


def _first_halves(faces: SampledFaces) -> NDArray[np.bool_]:
    """Return which faces are enrolled: the first half of each subject's."""
    enrolled = np.zeros(len(faces.subjects), dtype=np.bool_)
    usable = faces.enrolled.any(axis=1)
    for subject in np.unique(faces.subjects):
        rows = np.flatnonzero((faces.subjects == subject) & usable)
        if len(rows) > 1:
            enrolled[rows[: (len(rows) + 1) // 2]] = True
    return enrolled
