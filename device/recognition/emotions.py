"""Emotions of recognised people: the classifier and the policy, as one part of the pipeline."""

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
    """Classifies the faces of tracks that are somebody by now, all of a frame in one batch, nobody else's.

    A network that fails on a frame has seen no emotion in it; `failure` is what it said at its last use.
    """

    def __init__(self, classifier: EmotionClassifier, validator: EmotionEventValidator) -> None:
        self._classifier = classifier
        self._validator = validator
        self.failure: str | None = None

    @property
    def refusals(self) -> dict[str, int]:
        """Why emotions made no event, since the start; for any thread."""
        # Copied in one step: the thread that recognises may be adding a reason.
        return {f"emotion_{reason}": count for reason, count in self._validator.refusals.copy().items()}

    def read_emotions(
        self, faces: NDArray[np.uint8], sightings: Sequence[Sighting], frame_id: int
    ) -> list[tuple[Event, FaceBox]]:
        rows = [row for row, one in enumerate(sightings) if one.decision.user_id is not None]
        for seen in sightings:
            if seen.decision.user_id is None and seen.quality_reason is None:
                # Whoever this is now interrupts what the track's person was showing.
                self._validator.process_emotion(seen.track_id, None, None, 0.0, frame_id=frame_id)
        events = []
        for row, emotion in zip(rows, self._classify(faces[rows]), strict=True):
            seen = sightings[row]
            event = self._validator.process_emotion(
                seen.track_id, seen.decision.user_id, emotion.code, emotion.confidence, frame_id=frame_id
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
        odd = any(emotion.label is None for emotion in emotions)
        self.failure = "the emotion network answers NaN or infinity to a face" if odd else None
        return emotions
