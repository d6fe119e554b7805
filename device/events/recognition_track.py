"""Keep the last frames of a face track, judged by the limits of a match."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from broker_bridge.contract.messages import Liveness

from .decision import BELOW_THRESHOLD, LOW_MARGIN, NO_MATCH
from .match_limits import MatchLimits

UNKNOWN_REASONS: Final = frozenset({NO_MATCH, BELOW_THRESHOLD})
"""The reasons of a single frame for an unknown person."""


@dataclass(frozen=True)
class RatedFrame:
    """One frame of a track: an identity, or None with the reason.

    `nearest` is the nearest identity, also of a frame without a match.
    """

    nearest: str | None
    user_id: str | None
    reason: str | None
    distance: float
    margin: float | None
    liveness: Liveness | None = None


def rate_frame(
    nearest: str | None,
    distance: float,
    margin: float | None,
    limits: MatchLimits,
    liveness: Liveness | None = None,
) -> RatedFrame:
    """Return the frame with its identity, or with the reason for none."""
    reason = None
    if nearest is None:
        reason = NO_MATCH
    # In this form a distance or margin that is not a number is no match either.
    elif not distance <= limits.distance:
        reason = BELOW_THRESHOLD
    elif margin is not None and not margin >= limits.margin:
        reason = LOW_MARGIN
    return RatedFrame(nearest, nearest if reason is None else None, reason, distance, margin, liveness)


def lowest_liveness(frames: Sequence[Liveness | None]) -> Liveness | None:
    """Return the lowest of `frames`; None without frames, or if one of them has none."""
    known = [liveness for liveness in frames if liveness is not None]
    return min(known, key=lambda liveness: liveness.score) if known and len(known) == len(frames) else None


@dataclass
class RecognitionTrack:
    """The window of a track's last frames.

    `is_reported` says whether the track had an identity already, or was reported as unknown.
    """

    window: deque[RatedFrame]
    last_frame_id: int
    decided_at: float
    frames: int = field(default=0)
    is_reported: bool = field(default=False)

    def judge_again(self, limits: MatchLimits) -> None:
        """Judge the frames of the window by other limits."""
        frames = [
            rate_frame(each.nearest, each.distance, each.margin, limits, each.liveness)
            for each in self.window
        ]
        self.window.clear()
        self.window.extend(frames)

    def votes(self) -> int:
        """Return how many frames agree with the newest frame.

        Frames agree on the same identity, or on an unknown person.
        """
        newest = self.window[-1]
        if newest.user_id is not None:
            return sum(frame.user_id == newest.user_id for frame in self.window)
        return sum(frame.reason in UNKNOWN_REASONS for frame in self.window)
