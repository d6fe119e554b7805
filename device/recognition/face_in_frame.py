"""A face on its way through the stages of the pipeline, within one frame."""

from dataclasses import dataclass
from typing import Final

from broker_bridge.contract.messages import Liveness
from device.events.decision import EventDecision
from device.vision.detectors.detector import FaceBox, Float32
from device.vision.gallery import GalleryMatch

from .sighting import Sighting

# Cosine distance (0..2) of a face without a match: as far apart as two vectors can be.
_FARTHEST: Final = 2.0


@dataclass(slots=True)
class FaceInFrame:
    """What the stages have found of one face so far.

    `row` is its position in the frame's detections. `suppressed_reason` says why the frame is no evidence
    about this face. Vector, quality, match and liveness stay None for a face that a stage skips.
    """

    row: int
    track_id: str
    box: FaceBox
    landmarks: Float32 | None
    quality_reason: str | None
    suppressed_reason: str | None
    vector: Float32 | None = None
    quality: float | None = None
    match: GalleryMatch | None = None
    liveness: Liveness | None = None

    @property
    def distance(self) -> float:
        return self.match.distance if self.match else _FARTHEST

    def to_sighting(self, decision: EventDecision) -> Sighting:
        return Sighting(
            track_id=self.track_id,
            box=self.box,
            landmarks=self.landmarks,
            quality_reason=self.quality_reason,
            match=self.match,
            vector=self.vector,
            decision=decision,
            quality=self.quality,
            liveness=self.liveness,
        )
