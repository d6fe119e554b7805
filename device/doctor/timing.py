"""How long each stage of recognition takes on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace
from device.vision.alignment import align_faces
from device.vision.capture.sources import Image
from device.vision.detectors.detector import Detector
from device.vision.embedder import Embedder
from device.vision.gallery import Gallery
from device.vision.quality import QualityGate

from .synthetic import synthetic_faces

STAGES = ("detect", "align", "quality", "embed", "match", "together")
_STAND_IN_TEMPLATES = 1000
_SEED = 1000


@dataclass(frozen=True)
class StageTime:
    """Milliseconds a frame: the median, and what 95 of 100 frames stay below."""

    stage: str
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class StageTimes:
    """`frames` were timed, with `faces` faces in all, against a gallery of `templates`."""

    stages: tuple[StageTime, ...]
    frames: int
    faces: int
    templates: int
    synthetic: bool

    @property
    def frames_per_second(self) -> float:
        """What one thread can do, by the median of all stages together."""
        together = self.stages[-1].median_ms
        return 1000 / together if together > 0 else 0.0


@dataclass(frozen=True)
class RecognitionStages:
    """The parts of recognition, as the device is configured."""

    detector: Detector
    quality: QualityGate
    embedder: Embedder
    gallery: Gallery


def stand_in_gallery(space: EmbeddingSpace) -> Gallery:
    """1,000 random templates of nobody, for a device that holds none."""
    vectors = np.random.RandomState(_SEED).standard_normal((_STAND_IN_TEMPLATES, space.dimension))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Gallery(space, [f"nobody-{row}" for row in range(len(unit))], unit)


def time_stages(
    stages: RecognitionStages, images: Sequence[Image], *, synthetic: bool, timer: Callable[[], float]
) -> StageTimes:
    """Put `images` (at least one) through the stages; the first once more ahead, to warm up.

    A picture without a face counts as one with a face in its middle, so that every stage has work. `timer` is
    monotonic seconds. Raises ModelError.
    """
    _time_one(stages, images[0], timer)
    runs = [_time_one(stages, image, timer) for image in images]
    marks = np.array([run for run, _ in runs])
    milliseconds = np.diff(marks, axis=1) * 1000
    table = np.concatenate([milliseconds, milliseconds.sum(axis=1, keepdims=True)], axis=1)
    return StageTimes(
        tuple(
            StageTime(stage, float(np.median(column)), float(np.percentile(column, 95)))
            for stage, column in zip(STAGES, table.T, strict=True)
        ),
        frames=len(images),
        faces=sum(faces for _, faces in runs),
        templates=len(stages.gallery),
        synthetic=synthetic,
    )


def _time_one(stages: RecognitionStages, image: Image, timer: Callable[[], float]) -> tuple[list[float], int]:
    """The times at which the stages began and the last ended, and the number of faces."""
    marks = [timer()]
    found = stages.detector.detect(image)
    if not len(found):
        found = synthetic_faces(1, image)
    marks.append(timer())
    faces = align_faces(image, found)
    marks.append(timer())
    stages.quality.check_quality(faces, found)
    marks.append(timer())
    vectors = stages.embedder.embed(faces)
    marks.append(timer())
    stages.gallery.match(vectors)
    marks.append(timer())
    return marks, len(found)
