"""Search each face among all others, as a camera does in its gallery."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.spaces import SpaceLimits

from .pair_scores import Float32, Subjects, cosine_rows

_NOBODY_ELSE = -1.0
"""The similarity of a missing second subject, as in the gallery of a camera."""
_MISSING = -2.0


@dataclass(frozen=True)
class SearchOutcome:
    """How many searches end how, at the limits of a space.

    Enrolled faces are `right`, `wrong` (taken for another subject) or `unknown`; strangers are `taken` for
    a subject or `refused`.
    """

    right: int
    wrong: int
    unknown: int
    taken: int
    refused: int


@dataclass(frozen=True)
class Searches:
    """The best similarities of each face, float32[n].

    `own` is that to another photo of its subject (`has_own`: there is one), `other` and `second` are those
    to the two nearest other subjects.
    """

    subjects: Subjects
    own: Float32
    other: Float32
    second: Float32

    @property
    def has_own(self) -> NDArray[np.bool_]:
        return self.own > _MISSING

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether each face is nearest to its own subject; a tie is a miss."""
        return self.has_own & (self.own > self.other)

    def outcome(self, limits: SpaceLimits) -> SearchOutcome:
        """Return what the limits of a match decide.

        For an enrolled face its own photo is left out of the gallery, for a stranger its whole subject.
        """
        known = self.has_own
        is_hit = self.own > self.other
        best = np.maximum(self.own, self.other)
        runner_up = np.where(is_hit, self.other, np.maximum(self.own, self.second))
        matched = _matches(best, runner_up, limits)
        taken = _matches(self.other, self.second, limits)
        return SearchOutcome(
            right=int((known & matched & is_hit).sum()),
            wrong=int((known & matched & ~is_hit).sum()),
            unknown=int((known & ~matched).sum()),
            taken=int(taken.sum()),
            refused=int((~taken).sum()),
        )


def search_all(probes: Float32, references: Float32, subjects: Subjects) -> Searches:
    """Return the searches of `probes` in `references`.

    Both are float32[n, d] of the same n photos. Reference i is left out for probe i. There are at least two
    subjects.
    """
    order = np.argsort(subjects, kind="stable")
    present, starts = np.unique(subjects[order], return_index=True)
    own, other, second = (np.empty(len(probes), dtype=np.float32) for _ in range(3))
    for rows, cosines in cosine_rows(probes, references):
        cosines[np.arange(len(rows)), rows] = _MISSING
        best = np.maximum.reduceat(cosines[:, order], starts, axis=1)
        columns = np.searchsorted(present, subjects[rows])
        own[rows] = best[np.arange(len(rows)), columns]
        best[np.arange(len(rows)), columns] = _MISSING
        if len(present) > 2:
            ranked = np.partition(best, -2, axis=1)
            second[rows], other[rows] = ranked[:, -2], ranked[:, -1]
        else:
            second[rows], other[rows] = _NOBODY_ELSE, best.max(axis=1)
    return Searches(subjects, own, other, second)


def _matches(best: Float32, runner_up: Float32, limits: SpaceLimits) -> NDArray[np.bool_]:
    runner_up = np.maximum(runner_up, _NOBODY_ELSE)
    near: NDArray[np.bool_] = 1.0 - best.astype(np.float64) <= limits.distance
    return near & (best.astype(np.float64) - runner_up >= limits.margin)
