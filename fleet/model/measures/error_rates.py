"""Compute false match and false non-match rates over all thresholds.

A pair matches at a threshold when its score is at least the threshold. FAR is here the false match rate
(FMR) of ISO/IEC 19795-1, the share of impostor pairs that match; TAR is 1 - FNMR, the share of genuine pairs
that match.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pair_scores import PairScores

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Sums of weights are whole numbers; only the product of share and total is rounded.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ErrorCurve:
    """FAR and TAR at each threshold, both float64[t] and ascending.

    The first threshold is above every score (infinite): nothing matches. The others are the distinct scores,
    descending, so that equal scores are accepted together.
    """

    thresholds: Float64
    far: Float64
    tar: Float64

    def tar_at(self, far: float) -> tuple[float, float]:
        """Return the greatest TAR at a FAR of at most `far`, and its threshold."""
        row = self._row_at(far)
        return float(self.tar[row]), float(self.thresholds[row])

    def _row_at(self, far: float) -> int:
        return int(np.searchsorted(self.far, far * (1 + _ROUNDING), side="right")) - 1

    def eer(self) -> float:
        """Return the equal error rate.

        The points (FAR, FNMR) of neighbouring thresholds are joined by straight lines; the EER is where
        this line meets FAR = FNMR.
        """
        lead = 1 - self.tar - self.far
        row = int(np.argmax(lead <= 0))
        before = row - 1
        share = lead[before] / (lead[before] - lead[row])
        return float(self.far[before] + share * (self.far[row] - self.far[before]))


class RankedPairs:
    """The pairs in descending order of score, for curves under many weights."""

    def __init__(self, scores: PairScores) -> None:
        genuine = np.argsort(-scores.genuine, kind="stable")
        impostor = np.argsort(-scores.impostor, kind="stable")
        self.genuine_subjects = scores.genuine_subjects[genuine]
        self.impostor_subjects = scores.impostor_subjects[impostor]
        distinct = np.unique(np.concatenate([scores.genuine, scores.impostor]))[::-1]
        self._thresholds = np.concatenate([[np.inf], distinct.astype(np.float64)])
        # How many genuine and impostor pairs have at least the score of each threshold.
        self._genuine_ends = np.searchsorted(-scores.genuine[genuine], -distinct, side="right")
        self._impostor_ends = np.searchsorted(-scores.impostor[impostor], -distinct, side="right")

    def curve(
        self, genuine_weights: Int64 | None = None, impostor_weights: Int64 | None = None
    ) -> ErrorCurve | None:
        """Return the curve of the pairs, each counted as often as its weight says.

        None if no genuine or no impostor pair counts.
        """
        tar = _shares(genuine_weights, self._genuine_ends, len(self.genuine_subjects))
        far = _shares(impostor_weights, self._impostor_ends, len(self.impostor_subjects))
        return None if tar is None or far is None else ErrorCurve(self._thresholds, far, tar)


def _shares(weights: Int64 | None, ends: NDArray[np.intp], count: int) -> Float64 | None:
    """Return the share of the weight within each of `ends`, after a first share of 0."""
    if weights is None:
        within, total = ends, count
    else:
        sums = np.concatenate([[0], np.cumsum(weights)])
        within, total = sums[ends], int(sums[-1])
    return np.concatenate([[0.0], within / total]) if total else None
