"""The decision about one face in one frame: an event, or the reason for none."""

from dataclasses import dataclass
from typing import Final

from broker_bridge.contract.messages import Event

# The reasons for which a face in a frame makes no event. The heartbeat counts them under these names.
NO_MATCH: Final = "no_match"
BELOW_THRESHOLD: Final = "below_threshold"
LOW_MARGIN: Final = "low_margin"
LOW_QUALITY: Final = "low_quality"
NO_VECTOR: Final = "no_vector"
NOT_LIVE: Final = "not_live"
UNCONFIRMED: Final = "unconfirmed"
INCONSISTENT_TRACK: Final = "inconsistent_track"
COOLDOWN: Final = "cooldown"
REPEATED_FRAME: Final = "repeated_frame"
STALE_GALLERY: Final = "stale_gallery"
QUARANTINED: Final = "quarantined"
LIMITS_MISSING: Final = "limits_missing"
GALLERY_EMPTY: Final = "gallery_empty"
THRESHOLDS_UNSUITED: Final = "thresholds_unsuited"

VALIDATOR_REASONS: Final = frozenset(
    {BELOW_THRESHOLD, COOLDOWN, INCONSISTENT_TRACK, LOW_MARGIN, NO_MATCH, REPEATED_FRAME, UNCONFIRMED}
)
"""The reasons that EventValidator finds itself; its caller passes any other as `suppressed_reason`."""


@dataclass(frozen=True)
class EventDecision:
    """An event or the `reason` for none, exactly one of the two.

    `user_id` is the identity that the track has by now, also during a cooldown. `votes` counts the frames of
    the track's window that agree with the newest frame.
    """

    event: Event | None
    reason: str | None
    user_id: str | None = None
    votes: int = 0

    def __post_init__(self) -> None:
        if (self.event is None) == (self.reason is None):
            raise ValueError("expected an event or a reason, exactly one of them")
