"""What is played: how many cameras and people, how they walk, and all that makes following them hard."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAME_SIZE = (1920, 1080)
FRAME_SECONDS = 0.2
"""Cameras take five pictures a second, at the same instants."""
OBSERVED_SECONDS = 1.0
"""A camera tells of a track once a second."""

OWN_COSINE = (0.6, 0.8)
"""Two observations of one person, as ArcFace gives."""
LOOK_ALIKE_COSINE = 0.55
"""Two observations of two people who look alike, on average; others are at 0 +- 0.05."""

Span = tuple[float, float]
"""From, to: uniformly distributed."""

# In a building one mostly walks on to the next doors.
_NEXT_DOORS_SHARE = 0.7


@dataclass(frozen=True)
class StandingCrowd:
    """`people`, drawn by lot, stand on one camera together: from `at`, for `seconds`."""

    at: float
    camera: int
    people: int
    seconds: float = 30.0


@dataclass(frozen=True)
class Course:
    """Everything of a course but its randomness. Durations in seconds, shares 0..1.

    People come for the first time within `arrivals` (share of the course), stay in a camera's view for
    `dwell`, turn up on the next after `gap` or, for `away_share`, after `away`. Row c of `transitions` says
    where those on camera c go (none given: mostly to the next doors). `break_share` of observations are the
    last of their track: the person goes on under a new one, seconds later.

    `look_alikes` of the people look like another (0 like 1, 2 like 3, ...); if they `meet`, each such pair
    stands in one picture, once. Cameras 0 and 1, 2 and 3, ... share a view: `overlap` of visits to the one
    are seen by the other too. Each camera's clock is off by up to `clock_skew`, either way. `loss` of
    observations never arrive, the others up to `delay` late: not in the order in which they were made.
    """

    cameras: int
    people: int
    seconds: float
    transitions: tuple[tuple[float, ...], ...] | None = None
    arrivals: float = 0.5
    dwell: Span = (5.0, 40.0)
    gap: Span = (5.0, 60.0)
    away: Span = (120.0, 900.0)
    away_share: float = 0.1
    break_share: float = 0.0
    look_alikes: float = 0.0
    meet: bool = False
    crowds: tuple[StandingCrowd, ...] = ()
    overlap: float = 0.0
    clock_skew: float = 0.0
    loss: float = 0.0
    delay: float = 0.0
    dimension: int = 512

    def __post_init__(self) -> None:
        if self.cameras < 1 or self.people < 1 or self.seconds <= 0 or self.dimension < 2:
            raise ValueError(
                "a course has a camera, a person, some seconds and vectors of 2 numbers at least"
            )
        for name in ("arrivals", "away_share", "break_share", "look_alikes", "overlap", "loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        for name in ("dwell", "gap", "away"):
            shortest, longest = getattr(self, name)
            if not FRAME_SECONDS <= shortest <= longest:
                raise ValueError(f"{name} goes from {FRAME_SECONDS} s at least to what is not less")
        if self.clock_skew < 0 or self.delay < 0:
            raise ValueError("clock_skew and delay are seconds from 0")
        if any(not (0 <= crowd.camera < self.cameras and crowd.people > 0) for crowd in self.crowds):
            raise ValueError(f"a crowd has people, on one of cameras 0 to {self.cameras - 1}")
        self._check_transitions()

    def _check_transitions(self) -> None:
        rows = self.transitions
        if rows is not None and (
            len(rows) != self.cameras
            or any(len(row) != self.cameras or min(row) < 0 or not np.isclose(sum(row), 1.0) for row in rows)
        ):
            raise ValueError("transitions has a row per camera, of shares that go to each camera; sum 1")

    @property
    def pairs(self) -> int:
        """How many pairs of people look alike."""
        return int(self.people * self.look_alikes / 2)

    def kin(self, person: int) -> int:
        """Equal for two people who look alike, and for nobody else."""
        return person // 2 if person < 2 * self.pairs else person

    def partner(self, camera: int) -> int | None:
        """The camera that shares a view with this one; the last of an odd number has none."""
        other = camera ^ 1
        return other if other < self.cameras else None

    def likely_ways(self) -> NDArray[np.float64]:
        """float64[cameras, cameras]: row c has the shares of those on camera c who go to each."""
        count = self.cameras
        if self.transitions is not None:
            return np.array(self.transitions)
        if count == 1:
            return np.ones((1, 1))
        ways = np.full((count, count), (1 - _NEXT_DOORS_SHARE) / (count - 1))
        np.fill_diagonal(ways, 0.0)
        rows = np.arange(count)
        for step in (-1, 1):
            ways[rows, (rows + step) % count] += _NEXT_DOORS_SHARE / 2
        ways /= ways.sum(axis=1, keepdims=True)
        return ways


STANDARD = Course(
    cameras=20,
    people=500,
    seconds=3600.0,
    break_share=0.01,
    look_alikes=0.1,
    meet=True,
    crowds=(StandingCrowd(600.0, 3, 30), StandingCrowd(1500.0, 8, 50), StandingCrowd(2700.0, 14, 40)),
    overlap=0.15,
    clock_skew=60.0,
    loss=0.02,
    delay=0.3,
)
"""What issue and benchmark speak of: an hour of a building, with all of the troubles at once."""
