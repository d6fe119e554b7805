"""What recognition says of a face in a frame: the value that events, drawings and recordings are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker_bridge.contract.messages import Event
from device.events.decision import EventDecision
from device.vision.detectors.detector import FaceBox, Float32
from device.vision.gallery import GalleryMatch


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    `box` and `landmarks` (float32[5, 2]) in pixels of the frame, `poor` why it was too poor to be
    recognised (None: good enough), `match` the nearest person however far, `vector` float32[d] of unit
    length (None when it was not embedded, or has no vector), `quality` how good a vector it makes, 0..1 (see
    `face_quality`; None without one).
    """

    track_id: str
    box: FaceBox
    landmarks: Float32 | None
    quality_reason: str | None
    match: GalleryMatch | None
    vector: Float32 | None
    decision: EventDecision
    quality: float | None = None


@dataclass(frozen=True)
class FrameReport:
    """All that was seen in frame `index`, taken at `captured_at` (monotonic seconds); time by stage.

    `events` are those of the sightings and of emotions, each with the face that it is about.
    """

    index: int
    captured_at: float
    gallery_version: int
    sightings: tuple[Sighting, ...]
    milliseconds: Mapping[str, float]
    events: tuple[tuple[Event, FaceBox], ...] = ()
