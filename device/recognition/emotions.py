"""Read the emotions of recognised identities, as a stage of the pipeline."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.messages import Event
from device.events.emotion_validator import EmotionEventValidator
from device.vision.detectors.detector import FaceBox
from device.vision.emotion import Emotion, EmotionClassifier
from device.vision.inference.session import ModelError

from .sighting import Sighting

_NONE = Emotion(None, None, 0.0)


class EmotionStage:
    """The stage that classifies the faces of tracks with an identity.

    One batch per frame is classified. A frame on which the network fails has no emotions; `failure` is
    the error of its last use.
    """

    def __init__(self, classifier: EmotionClassifier, validator: EmotionEventValidator) -> None:
        self._classifier = classifier
        self._validator = validator
        self.failure: str | None = None

    @property
    def refusals(self) -> dict[str, int]:
        """Counts of reasons for no emotion event since the start; for any thread."""
        # Copied in one step, since the recognition thread may add a reason.
        return {f"emotion_{reason}": count for reason, count in self._validator.refusals.copy().items()}

    def read_emotions(
        self, faces: NDArray[np.uint8], sightings: Sequence[Sighting], frame_id: int
    ) -> list[tuple[Event, FaceBox]]:
        """Return the emotion events of this frame (see `EmotionReader`)."""
        rows = [row for row, seen in enumerate(sightings) if seen.decision.user_id is not None]
        for seen in sightings:
            if seen.decision.user_id is None and seen.quality_reason is None:
                # A face without an identity interrupts the emotion of the track.
                self._validator.process_emotion(seen.track_id, None, None, 0.0, frame_id=frame_id)
        events = []
        for row, emotion in zip(rows, self._classify(faces[rows]), strict=True):
            seen = sightings[row]
            event = self._validator.process_emotion(
                seen.track_id,
                seen.decision.user_id,
                emotion.code,
                emotion.confidence,
                frame_id=frame_id,
                liveness=seen.liveness,
            )
            if event is not None:
                events.append((event, seen.box))
        return events

    def _classify(self, faces: NDArray[np.uint8]) -> list[Emotion]:
        if not len(faces):
            return []
        try:
            emotions = self._classifier.classify(faces)
        except ModelError as error:
            self.failure = str(error)
            return [_NONE] * len(faces)
        is_unfit = any(emotion.label is None for emotion in emotions)
        self.failure = "the emotion network returns NaN or infinity for a face" if is_unfit else None
        return emotions
