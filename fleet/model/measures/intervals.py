"""Estimate how much figures depend on the people of the test.

This is a bootstrap over subjects. Whole subjects are drawn with replacement, since the pairs of one subject
are alike (Bolle, Ratha and Pankanti 2004). An impostor pair counts as often as both of its subjects together;
two copies of one subject make none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .error_rates import RankedPairs

LEAST_SUBJECTS = 3
"""Fewer people say nothing about others."""
_ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Intervals of rank-1, EER and TAR at each FAR.

    None where too few resamples have a figure.
    """

    rank1: Interval | None
    eer: Interval | None
    tar: tuple[Interval | None, ...]


def bootstrap(
    ranked: RankedPairs,
    fars: Sequence[float],
    hits: NDArray[np.int64],
    searches: NDArray[np.int64],
    *,
    resamples: int,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Intervals:
    """Return the intervals over `resamples` draws of all subjects.

    `hits` and `searches` are int64[s], the counts of rank-1 of each subject. `tick` is called after each
    draw.
    """
    count = len(searches)
    figures = np.full((resamples, 2 + len(fars)), np.nan)
    random = np.random.default_rng(seed)
    present = np.flatnonzero(_present(ranked, count))
    for row in range(resamples if len(present) >= LEAST_SUBJECTS else 0):
        drawn = random.choice(present, size=len(present))
        weights = np.bincount(drawn, minlength=count).astype(np.int64)
        searched = int(weights @ searches)
        if searched:
            figures[row, 0] = int(weights @ hits) / searched
        pairs = weights[ranked.impostor_subjects]
        curve = ranked.curve(weights[ranked.genuine_subjects], pairs[:, 0] * pairs[:, 1])
        if curve is not None:
            figures[row, 1] = curve.eer()
            figures[row, 2:] = [curve.tar_at(far)[0] for far in fars]
        tick()
    found = [_interval(column) for column in figures.T]
    return Intervals(found[0], found[1], tuple(found[2:]))


def _present(ranked: RankedPairs, count: int) -> NDArray[np.bool_]:
    """Return which subjects any pair has, bool[count]."""
    present = np.zeros(count, dtype=np.bool_)
    present[ranked.genuine_subjects] = True
    present[ranked.impostor_subjects.ravel()] = True
    return present


def _interval(figures: NDArray[np.float64]) -> Interval | None:
    """Return the interval of the figures that are numbers, None if they are few."""
    numbers = figures[~np.isnan(figures)]
    if len(numbers) < max(2, len(figures) // 2):
        return None
    low, high = np.percentile(numbers, _ENDS)
    return Interval(float(low), float(high))
