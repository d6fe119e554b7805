"""Measure recognition with the built-in model on photographs of known people."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from broker_bridge.contract.embeddings import Vector
from device.settings import QualitySettings
from device.vision.alignment import align_faces
from device.vision.photos.decoding import decode_photo
from device.vision.quality import QualityGate
from fleet.model.clip_trial import ClipTrial
from fleet.model.faces.clips import clip_of
from fleet.model.faces.face_reader import FaceReader, largest, to_frame
from fleet.model.faces.person_folders import read_person_folders
from fleet.model.faces.photo_set import PhotoSet
from fleet.model.faces.sampling import PhotoSampling, SampledFaces
from fleet.model.loaded_model import LoadedModel, ModelChoice, load_model
from fleet.model.report.evaluation import EvaluationPlan, evaluate_faces
from fleet.readers.files import read_photo

from .stats import Latency, Row
from .tracking.clips import ClipTracking, ObservedClip

_RANK1, _EER, _RIGHT, _RECALL = 0.98, 0.035, 0.85, 0.85
_ORDERS = 12
# A camera observes a person twice a second; the clips have ten frames a second.
_OBSERVED_FRAMES = 5


@dataclass(frozen=True)
class FacesRow(Row):
    """A row of what was recognised.

    Its latency is that of a face, a clip or an answer.
    """

    is_met: bool = True
    told: str = ""

    @property
    def holds(self) -> bool:
        return self.is_met and super().holds

    @property
    def must(self) -> str:
        return f"{self.told}  {'holds' if self.holds else 'MISSED'}"


def measure(folder: Path, progress: Progress) -> list[Row]:
    """Return how people are recognised; `folder` has a folder of photos per person."""
    loaded = load_model(ModelChoice(None))
    photos = read_person_folders(folder)
    task = progress.add_task("photographs", total=len(photos.photos))
    reader = FaceReader(loaded.detector, loaded.embedder, QualityGate(QualitySettings()))
    faces = PhotoSampling(photos, reader, loaded.dimension).sample(lambda: progress.advance(task))
    return [
        _compare(loaded, photos, faces),
        _show_clips(loaded, photos, faces, progress),
        _track(loaded, photos, faces, progress),
    ]


def _compare(loaded: LoadedModel, photos: PhotoSet, faces: SampledFaces) -> Row:
    camera = evaluate_faces(faces, None, loaded.record, EvaluationPlan(resamples=0))[0].camera
    assert camera.rank1 is not None
    rank1, eer = camera.rank1.value, camera.eer.value
    return FacesRow(
        f"{len(faces.names)} faces found in {faces.read} photographs of {len(photos.subjects)} people",
        Latency.from_seconds([each / 1000 for each in faces.milliseconds["embed"]]),
        is_met=rank1 >= _RANK1 and eer <= _EER,
        told=f"rank-1 {rank1:.1%} >= {_RANK1:.0%}, EER {eer:.1%} <= {_EER:.1%}",
    )


def _show_clips(loaded: LoadedModel, photos: PhotoSet, faces: SampledFaces, progress: Progress) -> Row:
    assert loaded.record is not None
    assert loaded.record.limits is not None
    trial = ClipTrial(photos, faces, loaded.detector, loaded.embedder, loaded.record.limits)
    task = progress.add_task("clips", total=len(trial.clips))
    began = time.perf_counter()
    outcome = trial.run_trial(lambda: progress.advance(task))
    per_clip = (time.perf_counter() - began) / max(1, len(trial.clips))
    known = outcome.right + outcome.wrong + outcome.unknown
    return FacesRow(
        f"  clips: {known} of people enrolled, {outcome.taken + outcome.refused} of strangers",
        Latency.from_seconds([per_clip]),
        is_met=outcome.right >= _RIGHT * known and not outcome.wrong + outcome.taken,
        told=f"{outcome.right} right >= {_RIGHT:.0%}, {outcome.wrong} wrong, {outcome.taken} strangers taken",
    )


def _track(loaded: LoadedModel, photos: PhotoSet, faces: SampledFaces, progress: Progress) -> Row:
    task = progress.add_task("tracking", total=len(faces.names))
    clips: list[ObservedClip] = []
    for row, subject in enumerate(faces.subjects.tolist()):
        vectors = list(_observed_vectors(loaded, photos, faces.positions[row], row))
        clips += [ObservedClip(subject, vectors)] if vectors else []
        progress.advance(task)
    tracking, random = ClipTracking(clips), np.random.default_rng(0)
    runs = [tracking.track(random.permutation(len(clips)).tolist()) for _ in range(_ORDERS)]
    recall, merged = float(np.mean([each for each, _ in runs])), sum(count for _, count in runs)
    return FacesRow(
        f"  tracked: {len(clips)} clips in {_ORDERS} orders",
        Latency.from_seconds(tracking.seconds),
        is_met=recall >= _RECALL and not merged,
        told=f"pair recall {recall:.3f} >= {_RECALL}, {merged} merged",
    )


def _observed_vectors(loaded: LoadedModel, photos: PhotoSet, position: int, seed: int) -> Iterator[Vector]:
    image = to_frame(decode_photo(read_photo(photos.photos[position].file)[0]))
    gate = QualityGate(QualitySettings())
    box = largest(loaded.detector.detect(image)).face_box(0)
    for index, frame in enumerate(clip_of(image, box, seed)):
        if index % _OBSERVED_FRAMES:
            continue
        found = largest(loaded.detector.detect(frame))
        aligned = align_faces(frame, found)
        if len(found) == 1 and gate.check_quality(aligned, found)[0] is None:
            yield loaded.embedder.embed(aligned)[0]
