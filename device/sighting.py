"""What recognition says of a face in a frame: the value that events, drawings and recordings are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker_bridge.contract.messages import Event

from .vision.detector import FaceBox, Float32
from .vision.gallery import Match

# Why a face in a frame made no event. The heartbeat counts them.
NO_MATCH: Final = "no_match"
BELOW_THRESHOLD: Final = "below_threshold"
LOW_MARGIN: Final = "low_margin"
LOW_QUALITY: Final = "low_quality"
UNCONFIRMED: Final = "unconfirmed"
INCONSISTENT_TRACK: Final = "inconsistent_track"
COOLDOWN: Final = "cooldown"
REPEATED_FRAME: Final = "repeated_frame"
STALE_GALLERY: Final = "stale_gallery"
QUARANTINED: Final = "quarantined"


@dataclass(frozen=True)
class Decision:
    """An event, or the reason why there is none: exactly one of both.

    `person` is who the track is by now, also while a cooldown keeps back the event; `votes` how many frames
    of the track's window say what the newest says.
    """

    event: Event | None
    refusal: str | None
    person: str | None = None
    votes: int = 0

    def __post_init__(self) -> None:
        if (self.event is None) == (self.refusal is None):
            raise ValueError("a decision is an event or a refusal")


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    `box` and `landmarks` (float32[5, 2]) in pixels of the frame, `poor` why it was too poor to be
    recognised (None: good enough), `match` the nearest person however far, `vector` float32[d] of unit
    length (None when it was not embedded).
    """

    track_id: str
    box: FaceBox
    landmarks: Float32 | None
    poor: str | None
    match: Match | None
    vector: Float32 | None
    decision: Decision


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
