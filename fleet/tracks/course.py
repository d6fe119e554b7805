"""Describe a course: cameras, walkers, and all that makes tracking hard."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAME_SIZE = (1920, 1080)
FRAME_SECONDS = 0.2
"""All cameras take five pictures a second, at the same times."""
OBSERVED_SECONDS = 1.0
"""A camera sends one observation a second per track."""

OWN_COSINE = (0.6, 0.8)
"""The cosine of two observations of one walker, as ArcFace gives it."""
LOOK_ALIKE_COSINE = 0.55
"""The mean cosine of two walkers that look alike; other pairs are at 0 +- 0.05."""

Span = tuple[float, float]
"""From, to: uniformly distributed."""

# In a building most ways lead to a neighbouring door.
_NEXT_DOORS_SHARE = 0.7


@dataclass(frozen=True)
class StandingCrowd:
    """Walkers that stand in one camera's view together.

    `walkers` of them are drawn at random; they stay from `at`, for `seconds`.
    """

    at: float
    camera: int
    walkers: int
    seconds: float = 30.0


@dataclass(frozen=True)
class Course:
    """The parameters of a course.

    Durations in seconds, shares 0..1. Raises ValueError.
    A walker appears first within `arrivals` (share of the course), stays in a camera's view for `dwell`, and
    appears on the next camera after `gap` or, for `away_share` of the ways, after `away`. Row c of
    `transitions` has the share of ways from camera c to each camera (None: mostly to the neighbours). After
    `break_share` of the observations the track breaks: the walker continues under a new one, seconds later.

    `look_alikes` of the walkers look like another (0 like 1, 2 like 3, ...); with `look_alikes_meet` each
    pair stands in one picture, once. Cameras 0 and 1, 2 and 3, ... share a view: `overlap` of the visits to
    one are seen by the other too. Each camera's clock is off by up to `clock_skew`, either way. `loss` of the
    observations never arrive; the others arrive up to `delay` late and so out of order.
    """

    cameras: int
    walkers: int
    seconds: float
    transitions: tuple[tuple[float, ...], ...] | None = None
    arrivals: float = 0.5
    dwell: Span = (5.0, 40.0)
    gap: Span = (5.0, 60.0)
    away: Span = (120.0, 900.0)
    away_share: float = 0.1
    break_share: float = 0.0
    look_alikes: float = 0.0
    look_alikes_meet: bool = False
    crowds: tuple[StandingCrowd, ...] = ()
    overlap: float = 0.0
    clock_skew: float = 0.0
    loss: float = 0.0
    delay: float = 0.0
    dimension: int = 512

    def __post_init__(self) -> None:
        if self.cameras < 1 or self.walkers < 1 or self.seconds <= 0 or self.dimension < 2:
            raise ValueError(
                "a course needs at least one camera, one walker, a positive duration and vectors of 2 numbers"
            )
        for name in ("arrivals", "away_share", "break_share", "look_alikes", "overlap", "loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, not {getattr(self, name)}")
        for name in ("dwell", "gap", "away"):
            shortest, longest = getattr(self, name)
            if not FRAME_SECONDS <= shortest <= longest:
                raise ValueError(
                    f"{name} must go from at least {FRAME_SECONDS} s up, not from {shortest} to {longest}"
                )
        if self.clock_skew < 0 or self.delay < 0:
            raise ValueError("clock_skew and delay must be 0 s or more")
        if any(not (0 <= crowd.camera < self.cameras and crowd.walkers > 0) for crowd in self.crowds):
            raise ValueError(f"a crowd needs walkers and a camera from 0 to {self.cameras - 1}")
        self._check_transitions()

    def _check_transitions(self) -> None:
        rows = self.transitions
        if rows is not None and (
            len(rows) != self.cameras
            or any(len(row) != self.cameras or min(row) < 0 or not np.isclose(sum(row), 1.0) for row in rows)
        ):
            raise ValueError("transitions needs a row per camera, with a share per camera and sum 1")

    @property
    def look_alike_pairs(self) -> int:
        """Return the number of pairs of walkers that look alike."""
        return int(self.walkers * self.look_alikes / 2)

    def look_alike_group(self, walker: int) -> int:
        """Return a number that two walkers share exactly if they look alike."""
        return walker // 2 if walker < 2 * self.look_alike_pairs else walker

    def partner(self, camera: int) -> int | None:
        """Return the camera that shares a view with this one.

        The last of an odd number has none.
        """
        other = camera ^ 1
        return other if other < self.cameras else None

    def transition_matrix(self) -> NDArray[np.float64]:
        """Return float64[cameras, cameras]: row c has the shares of ways from camera c."""
        count = self.cameras
        if self.transitions is not None:
            return np.array(self.transitions)
        if count == 1:
            return np.ones((1, 1))
        transition_shares = np.full((count, count), (1 - _NEXT_DOORS_SHARE) / (count - 1))
        np.fill_diagonal(transition_shares, 0.0)
        rows = np.arange(count)
        for step in (-1, 1):
            transition_shares[rows, (rows + step) % count] += _NEXT_DOORS_SHARE / 2
        transition_shares /= transition_shares.sum(axis=1, keepdims=True)
        return transition_shares


STANDARD = Course(
    cameras=20,
    walkers=500,
    seconds=3600.0,
    break_share=0.01,
    look_alikes=0.1,
    look_alikes_meet=True,
    crowds=(StandingCrowd(600.0, 3, 30), StandingCrowd(1500.0, 8, 50), StandingCrowd(2700.0, 14, 40)),
    overlap=0.15,
    clock_skew=60.0,
    loss=0.02,
    delay=0.3,
)
"""The course of the benchmark: an hour of a building, with every difficulty at once."""
