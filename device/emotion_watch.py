"""The emotions of recognised people, frame by frame."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.messages import Event

from .emotion_validator import EmotionEventValidator
from .sighting import Sighting
from .vision.detector import FaceBox
from .vision.emotion import Emotion


class Classifier(Protocol):
    def classify(self, faces: NDArray[np.uint8]) -> list[Emotion]:
        """One emotion for each of `faces`, uint8[n, 112, 112, 3] BGR."""
        ...


class EmotionWatch:
    """Asks the classifier about the faces of people whom the track has confirmed, and of nobody else.

    A face that was too poor to be recognised says nothing, neither for an emotion nor against.
    """

    def __init__(self, classifier: Classifier, validator: EmotionEventValidator) -> None:
        self._classifier = classifier
        self._validator = validator

    def watch(
        self, faces: NDArray[np.uint8], sightings: Sequence[Sighting], frame_id: int
    ) -> list[tuple[Event, FaceBox]]:
        """The emotion events that frame `frame_id` completes, each with the box of its face.

        `faces` (uint8[n, 112, 112, 3] BGR) belong to `sightings` row by row. Raises ModelError when the
        network fails on them.
        """
        known = [row for row, each in enumerate(sightings) if each.decision.person is not None]
        emotions = dict(zip(known, self._classifier.classify(faces[known]), strict=True))
        events = []
        for row, sighting in enumerate(sightings):
            if sighting.poor is not None:
                continue
            emotion = emotions.get(row)
            event = self._validator.process_emotion(
                sighting.track_id,
                sighting.decision.person,
                emotion.code if emotion else None,
                emotion.confidence if emotion else 0.0,
                frame_id=frame_id,
            )
            if event is not None:
                events.append((event, sighting.box))
        return events
