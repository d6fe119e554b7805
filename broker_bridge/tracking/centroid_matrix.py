"""The means of the people in memory, in one space: who is nearest to a face."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import Vector

_FEWEST_ROWS = 64


class CentroidMatrix:
    """Means float32[n, d] in one space, one or more rows per person."""

    def __init__(self, dimension: int) -> None:
        self._means: Vector = np.zeros((_FEWEST_ROWS, dimension), dtype=np.float32)
        self._owners: NDArray[np.int64] = np.zeros(_FEWEST_ROWS, dtype=np.int64)
        self._count = 0

    def add(self, global_id: int, mean: Vector) -> None:
        if self._count == len(self._means):
            self._means = np.concatenate([self._means, np.zeros_like(self._means)])
            self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
        self._means[self._count], self._owners[self._count] = mean, global_id
        self._count += 1

    def move(self, global_id: int, before: Vector, mean: Vector) -> None:
        """Put `mean` in the place of the row of that person that was `before`."""
        for row in np.flatnonzero(self._owners[: self._count] == global_id):
            if np.array_equal(self._means[row], before):
                self._means[row] = mean
                return

    def remove(self, global_ids: set[int]) -> None:
        gone = np.isin(self._owners[: self._count], list(global_ids))
        # From the end: the last row, which fills the gap, is then never one of those that go.
        for row in np.flatnonzero(gone)[::-1]:
            self._count -= 1
            self._means[row], self._owners[row] = self._means[self._count], self._owners[self._count]
            self._means[self._count] = 0

    def similarity(self, vector: Vector, global_id: int) -> float:
        """The mean cosine of the nearest row of a person; -1 without one."""
        rows = self._means[: self._count][self._owners[: self._count] == global_id]
        return float(np.vecdot(rows, vector).max(initial=-1.0))

    def nearest_two(
        self, vector: Vector, left_out: Iterable[int]
    ) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """The two nearest people with their mean cosines; (0, -1) without a second, None without a first."""
        if not self._count:
            return None
        owners = self._owners[: self._count]
        # Not a product of matrices: the threads of BLAS would wait for each other on a busy machine.
        similarities: Vector = np.vecdot(self._means[: self._count], vector)
        for global_id in left_out:
            similarities[owners == global_id] = -1.0
        first = similarities.argmax()
        best = int(owners[first]), float(similarities[first])
        if best[1] <= -1.0:
            return None
        similarities[owners == owners[first]] = -1.0
        next_ = similarities.argmax()
        second = (int(owners[next_]), float(similarities[next_])) if similarities[next_] > -1.0 else (0, -1.0)
        return best, second
