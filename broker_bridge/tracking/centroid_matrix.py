"""Find the active persons that are nearest to a face in one space."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import Vector

_INITIAL_ROWS = 64


class CentroidMatrix:
    """Centroids float32[n, d] of one space, one or more rows per person."""

    def __init__(self, dimension: int) -> None:
        self._means: Vector = np.zeros((_INITIAL_ROWS, dimension), dtype=np.float32)
        self._owners: NDArray[np.int64] = np.zeros(_INITIAL_ROWS, dtype=np.int64)
        self._count = 0

    def add(self, global_id: int, mean: Vector) -> None:
        if self._count == len(self._means):
            self._means = np.concatenate([self._means, np.zeros_like(self._means)])
            self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
        self._means[self._count], self._owners[self._count] = mean, global_id
        self._count += 1

    def move(self, global_id: int, before: Vector, mean: Vector) -> None:
        """Replace the row `before` of a person by `mean`."""
        for row in np.flatnonzero(self._owners[: self._count] == global_id):
            if np.array_equal(self._means[row], before):
                self._means[row] = mean
                return

    def remove(self, global_ids: set[int]) -> None:
        removed = np.isin(self._owners[: self._count], list(global_ids))
        # From the end: the last row, which fills the gap, is then never one that is to be removed.
        for row in np.flatnonzero(removed)[::-1]:
            self._count -= 1
            self._means[row], self._owners[row] = self._means[self._count], self._owners[self._count]
            self._means[self._count] = 0

    def similarity(self, vector: Vector, global_id: int) -> float:
        """Return the mean cosine of the nearest row of a person; -1 without a row."""
        rows = self._means[: self._count][self._owners[: self._count] == global_id]
        return float(np.vecdot(rows, vector).max(initial=-1.0))

    def nearest_two(
        self, vector: Vector, excluded: Iterable[int]
    ) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """Return global id and mean cosine of the two nearest persons.

        (0, -1) stands for a missing second; None is returned without a first.
        """
        if not self._count:
            return None
        owners = self._owners[: self._count]
        # Not a product of matrices: the threads of BLAS would wait for each other on a busy machine.
        similarities: Vector = np.vecdot(self._means[: self._count], vector)
        for global_id in excluded:
            similarities[owners == global_id] = -1.0
        first = similarities.argmax()
        best = int(owners[first]), float(similarities[first])
        if best[1] <= -1.0:
            return None
        similarities[owners == owners[first]] = -1.0
        next_ = similarities.argmax()
        second = (int(owners[next_]), float(similarities[next_])) if similarities[next_] > -1.0 else (0, -1.0)
        return best, second
