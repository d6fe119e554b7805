"""Build the parts of recognition from a device's settings."""

from collections.abc import Callable
from dataclasses import dataclass

from broker_bridge.contract.embeddings import EmbeddingSpace
from device.events.emotion_validator import EmotionEventValidator
from device.events.event_validator import EventValidator
from device.settings import DeviceSection, EmotionSettings, Thresholds
from device.timing.clocks import FrameClock
from device.vision import gabor
from device.vision.detectors.detector import Detector
from device.vision.detectors.loader import load_detector
from device.vision.embedder import FaceEmbedder, load_embedder
from device.vision.emotion import EmotionClassifier
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.inference.loader import open_session
from device.vision.inference.session import SessionOptions
from device.vision.quality import QualityGate
from device.vision.tracker import FaceTracker

from .emotions import EmotionStage
from .pipeline import OnEvent, RecognitionPipeline

# Matches are exact this far beyond the threshold, so that drawings, and recordings that are replayed under
# looser thresholds, have true distances.
_EXACT_BEYOND = 0.15
# The distance of seed 003.
_FOR_ARCFACE = Thresholds(distance=0.35)


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
    emotions: EmotionStage | None
    clock: FrameClock
    limits: Thresholds

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
            emotions=self.emotions,
            floor=max(-1.0, 1.0 - self.limits.distance - self.limits.margin - _EXACT_BEYOND),
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
    """Build the parts that the settings name. Raises ModelError with one sentence."""
    clock = FrameClock()
    options = session_options(device)
    embedder = load_embedder(str(device.model) if device.model else None, device.space, options)
    detector = load_detector(
        device.detector, device.detector_model, device.detector_score, device.min_face_pixels, options
    )
    limits = thresholds(device, embedder.space.id)
    validator = EventValidator(
        device.id,
        device.confirmation_frames,
        device.consistency_threshold,
        device.cooldown_seconds,
        limits.distance,
        min_margin=limits.margin,
        unknown_events=device.unknown_events,
        clock=clock,
    )
    return Recognition(
        detector=detector,
        embedder=embedder,
        galleries=GalleryHolder(Gallery.empty(embedder.space)),
        validator=validator,
        quality=QualityGate(device.quality),
        emotions=_emotions(device.id, device.emotion, options, clock) if device.emotion else None,
        clock=clock,
        limits=limits,
    )


def thresholds(device: DeviceSection, space_id: str) -> Thresholds:
    """Return the thresholds of a space: the configured ones, else its defaults."""
    defaults = Thresholds(distance=gabor.DISTANCE_THRESHOLD, margin=gabor.MIN_MARGIN)
    return device.thresholds.get(space_id, defaults if space_id == gabor.SPACE_ID else _FOR_ARCFACE)


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
