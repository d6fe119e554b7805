"""Load what one setting names: the embedder with its record, and its detector."""

from dataclasses import dataclass

from broker_bridge.contract.spaces import SpaceRecord
from device.vision.detectors.detector import Detector
from device.vision.detectors.kind import check_detector_model
from device.vision.detectors.loader import load_detector
from device.vision.embedder import FaceEmbedder, load_embedder
from device.vision.inference.session import ModelError, SessionOptions
from device.vision.model_record import with_detector

from .model_settings import FaceModelSettings


@dataclass(frozen=True)
class FaceModel:
    """An embedder, the detector of its faces, and the complete record of its space."""

    embedder: FaceEmbedder
    detector: Detector
    record: SpaceRecord


def load_recorded_embedder(
    settings: FaceModelSettings, options: SessionOptions | None = None
) -> FaceEmbedder:
    """Load the embedder; its record has the detector and the alignment.

    Raises ModelError with one sentence.
    """
    embedder = load_embedder(
        settings.model, settings.space, options, reference_model=settings.reference_model
    )
    embedder.record = with_detector(embedder.record, settings.detector)
    return embedder


def load_recorded_detector(
    settings: FaceModelSettings, record: SpaceRecord, options: SessionOptions | None = None
) -> Detector:
    """Load the detector of `record`. Raises ModelError with one sentence."""
    kind = record.detector or "cascade"
    try:
        check_detector_model(kind, settings.detector_model)
    except ValueError as error:
        raise ModelError(f"faces of {record.space} are found by {kind}: {error}") from error
    return load_detector(
        kind,
        settings.detector_model,
        settings.detector_score,
        settings.min_face_pixels,
        options,
        alignment=record.alignment or "landmarks",
    )


def load_face_model(settings: FaceModelSettings, options: SessionOptions | None = None) -> FaceModel:
    """Load embedder and detector. Raises ModelError with one sentence."""
    embedder = load_recorded_embedder(settings, options)
    detector = load_recorded_detector(settings, embedder.record, options)
    return FaceModel(embedder, detector, embedder.record)
