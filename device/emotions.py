"""Emotions of recognised people: the classifier and the policy, as one part of the pipeline."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.messages import Event

from .emotion_validator import EmotionEventValidator
from .sighting import Sighting
from .vision.detector import FaceBox
from .vision.emotion import EmotionClassifier


class EmotionWatch:
    """Classifies the faces of tracks that are somebody by now, all of a frame in one batch, nobody else's."""

    def __init__(self, classifier: EmotionClassifier, validator: EmotionEventValidator) -> None:
        self._classifier = classifier
        self._validator = validator

    @property
    def refusals(self) -> dict[str, int]:
        """Why emotions made no event, since the start."""
        return {f"emotion_{reason}": count for reason, count in self._validator.refusals.items()}

    def watch(
        self, faces: NDArray[np.uint8], sightings: Sequence[Sighting], frame_id: int
    ) -> list[tuple[Event, FaceBox]]:
        rows = [row for row, one in enumerate(sightings) if one.decision.person is not None]
        for seen in sightings:
            if seen.decision.person is None and seen.poor is None:
                # Whoever this is now interrupts what the track's person was showing.
                self._validator.process_emotion(seen.track_id, None, None, 0.0, frame_id=frame_id)
        events = []
        emotions = self._classifier.classify(faces[rows]) if rows else []
        for row, emotion in zip(rows, emotions, strict=True):
            seen = sightings[row]
            event = self._validator.process_emotion(
                seen.track_id, seen.decision.person, emotion.code, emotion.confidence, frame_id=frame_id
            )
            if event is not None:
                events.append((event, seen.box))
        return events
