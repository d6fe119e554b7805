"""Time each stage of recognition on this machine."""

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
_SYNTHETIC_TEMPLATES = 1000
_SEED = 1000


@dataclass(frozen=True)
class StageTime:
    """Milliseconds per frame: the median and the 95th percentile."""

    stage: str
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class StageTimes:
    """The times of `frames` frames with `faces` faces, against `templates` templates."""

    stages: tuple[StageTime, ...]
    frames: int
    faces: int
    templates: int
    synthetic: bool

    @property
    def frames_per_second(self) -> float:
        """Return the frames per second of one thread, by the median of a whole frame."""
        together = self.stages[-1].median_ms
        return 1000 / together if together > 0 else 0.0


@dataclass(frozen=True)
class RecognitionStages:
    """The parts of recognition with the device's configuration."""

    detector: Detector
    quality: QualityGate
    embedder: Embedder
    gallery: Gallery


def synthetic_gallery(space: EmbeddingSpace) -> Gallery:
    """Return 1,000 random templates, for a device without a gallery."""
    vectors = np.random.RandomState(_SEED).standard_normal((_SYNTHETIC_TEMPLATES, space.dimension))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Gallery(space, [f"synthetic-{row}" for row in range(len(unit))], unit)


def time_stages(
    stages: RecognitionStages, images: Sequence[Image], *, synthetic: bool, timer: Callable[[], float]
) -> StageTimes:
    """Run `images` (at least one) through the stages and time them; raises ModelError.

    The first image runs once more ahead, to warm up. A picture without a face gets a synthetic one, so that
    every stage has work. `timer` is monotonic seconds.
    """
    _time_run(stages, images[0], timer)
    runs = [_time_run(stages, image, timer) for image in images]
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


def _time_run(stages: RecognitionStages, image: Image, timer: Callable[[], float]) -> tuple[list[float], int]:
    """Return the start times of the stages, the end of the last, and the faces."""
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
