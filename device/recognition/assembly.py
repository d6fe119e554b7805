"""Build the parts of recognition from a device's settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import SpaceRecord
from device.events.emotion_validator import EmotionEventValidator
from device.events.event_validator import EventValidator
from device.events.match_limits import MatchLimits
from device.settings import DeviceSection, EmotionSettings
from device.timing.clocks import FrameClock
from device.vision.detectors.detector import Detector
from device.vision.embedder import FaceEmbedder
from device.vision.emotion import EmotionClassifier
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.inference.loader import open_session
from device.vision.inference.session import SessionOptions
from device.vision.quality import QualityGate
from device.vision.recorded.face_model import load_face_model
from device.vision.tracker import FaceTracker

from .emotions import EmotionStage
from .limits import LimitsInUse
from .liveness import LivenessStage
from .liveness_check import load_liveness_check
from .pipeline import OnEvent, RecognitionPipeline


@dataclass(frozen=True)
class Recognition:
    """The parts of a pipeline.

    The gallery in `galleries` may be swapped while the pipeline runs.
    """

    detector: Detector
    embedder: FaceEmbedder
    galleries: GalleryHolder
    validator: EventValidator
    quality: QualityGate
    liveness: LivenessStage | None
    emotions: EmotionStage | None
    clock: FrameClock
    limits: LimitsInUse
    record: SpaceRecord

    @property
    def space(self) -> EmbeddingSpace:
        return self.embedder.space

    def refusals(self) -> dict[str, int]:
        """Return the counts of reasons for no event since the start, emotions included."""
        return {**self.validator.refusals, **(self.emotions.refusals if self.emotions else {})}

    def create_tracker(self) -> FaceTracker:
        """Return a tracker without tracks."""
        return FaceTracker()

    def build_pipeline(
        self, *, suppressed_reason: Callable[[], str | None], on_event: OnEvent
    ) -> RecognitionPipeline:
        """Return a pipeline of these parts with a new tracker."""
        return RecognitionPipeline(
            self.detector,
            self.create_tracker(),
            self.embedder,
            self.galleries,
            self.validator,
            quality=self.quality,
            liveness=self.liveness,
            emotions=self.emotions,
            limits=self.limits.match_limits,
            clock=self.clock,
            suppressed_reason=suppressed_reason,
            on_event=on_event,
        )


def session_options(device: DeviceSection) -> SessionOptions:
    """Return the session options of the device's networks."""
    return SessionOptions(
        providers=device.providers,
        threads=device.threads,
        engine_cache=device.engine_cache or device.data_dir / "engines",
        fp16=device.fp16,
    )


def build_recognition(device: DeviceSection) -> Recognition:
    """Build the parts that the settings name.

    Raises ModelError or SettingsError with one sentence.
    """
    clock = FrameClock()
    options = session_options(device)
    model = load_face_model(device.face_model_settings, options)
    embedder, record = model.embedder, model.record
    limits = limits_of(device, record)
    initial = limits.match_limits() or MatchLimits(0.0)
    validator = EventValidator(
        device.id,
        device.confirmation_frames,
        device.consistency_threshold,
        device.cooldown_seconds,
        initial.distance,
        min_margin=initial.margin,
        unknown_events=device.unknown_events,
        clock=clock,
    )
    return Recognition(
        detector=model.detector,
        embedder=embedder,
        galleries=GalleryHolder(Gallery.empty(embedder.space)),
        validator=validator,
        quality=QualityGate(device.quality),
        liveness=_liveness(device),
        emotions=_emotions(device.id, device.emotion, options, clock) if device.emotion else None,
        clock=clock,
        limits=limits,
        record=record,
    )


def limits_of(device: DeviceSection, record: SpaceRecord) -> LimitsInUse:
    """Return the limits of the camera's space, before the registry says any.

    Raises SettingsError for thresholds of a space that the device does not have.
    """
    unknown = sorted(set(device.thresholds) - {record.space, *device.further_spaces})
    if unknown:
        raise SettingsError([_unknown_thresholds(unknown, record.space)])
    configured = device.thresholds.get(record.space)
    return LimitsInUse(configured.match_limits if configured else None, record.limits)


def _unknown_thresholds(unknown: Sequence[str], space: str) -> str:
    return (
        f"device.thresholds: {', '.join(unknown)} is no space of this device, which compares faces in "
        f"{space}: correct the name, or remove it"
    )


def _liveness(device: DeviceSection) -> LivenessStage | None:
    if device.liveness == "off":
        return None
    check = load_liveness_check(device.liveness_check or "")
    # Without a threshold, which the settings do not let pass, nothing but certainty is enough.
    return LivenessStage(check, device.liveness_threshold or 1.0 if device.liveness == "require" else None)


def _emotions(
    device_id: str, emotion: EmotionSettings, options: SessionOptions, clock: FrameClock
) -> EmotionStage:
    classifier = EmotionClassifier(
        open_session(emotion.model, options), emotion.classes, emotion.codes, emotion.mean, emotion.scale
    )
    validator = EmotionEventValidator(
        device_id,
        emotion.min_duration_ms,
        emotion.confidence_threshold,
        emotion.cooldown_seconds,
        clock=clock,
    )
    return EmotionStage(classifier, validator)
