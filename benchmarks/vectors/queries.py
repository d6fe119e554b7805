"""Draw search queries whose right answers are known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Queries:
    """`vectors` float32[q, 512] and of each the row that it is nearest to.

    -1 for a stranger.
    """

    vectors: Vectors
    rows: NDArray[np.intp]

    def only(self, wanted: NDArray[np.intp]) -> "Queries":
        return Queries(self.vectors[wanted], self.rows[wanted])
