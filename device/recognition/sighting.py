"""Results of recognition: the input of events, drawings and recordings."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker_bridge.contract.messages import Event, Liveness
from device.events.decision import EventDecision
from device.vision.detectors.detector import FaceBox, Float32
from device.vision.gallery import GalleryMatch


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    `box` and `landmarks` (float32[5, 2]) are in pixels of the frame. `quality_reason` says why the face is
    not good enough to be recognised (None: it is). `match` is the nearest identity at any distance. `vector`
    is float32[d] of unit length, None for a face that was not embedded or has no vector. `quality` is the
    vector's, 0..1 (see `face_quality`), None without a vector. `liveness` is None without a check of it.
    """

    track_id: str
    box: FaceBox
    landmarks: Float32 | None
    quality_reason: str | None
    match: GalleryMatch | None
    vector: Float32 | None
    decision: EventDecision
    quality: float | None = None
    liveness: Liveness | None = None


@dataclass(frozen=True)
class FrameReport:
    """Result of frame `index`, taken at `captured_at` (monotonic seconds).

    `milliseconds` is the time per stage. `events` are those of the sightings and of emotions, each with the
    box of its face.
    """

    index: int
    captured_at: float
    gallery_version: int
    sightings: tuple[Sighting, ...]
    milliseconds: Mapping[str, float]
    events: tuple[tuple[Event, FaceBox], ...] = ()
