"""What is decided about one face in one frame: an event, or the reason why there is none."""

from dataclasses import dataclass
from typing import Final

from broker_bridge.contract.messages import Event

# Why a face in a frame made no event. The heartbeat counts them.
NO_MATCH: Final = "no_match"
BELOW_THRESHOLD: Final = "below_threshold"
LOW_MARGIN: Final = "low_margin"
LOW_QUALITY: Final = "low_quality"
NO_VECTOR: Final = "no_vector"
UNCONFIRMED: Final = "unconfirmed"
INCONSISTENT_TRACK: Final = "inconsistent_track"
COOLDOWN: Final = "cooldown"
REPEATED_FRAME: Final = "repeated_frame"
STALE_GALLERY: Final = "stale_gallery"
QUARANTINED: Final = "quarantined"

JUDGED: Final = frozenset(
    {BELOW_THRESHOLD, COOLDOWN, INCONSISTENT_TRACK, LOW_MARGIN, NO_MATCH, REPEATED_FRAME, UNCONFIRMED}
)
"""What EventValidator finds by itself; any other reason is given to it."""


@dataclass(frozen=True)
class EventDecision:
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
