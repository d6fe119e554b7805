"""Rotate vectors so that their coordinates look like random directions."""

from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Rotation:
    """A fixed orthonormal map of float32[n, d] to float32[n, size].

    `size` is a power of two. The map is two rounds of random signs and a Walsh-Hadamard transform. After
    one round, where few coordinates outweigh the rest as after a PCA, rows repeat and the bits depend on
    each other.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        inner = 1 << (size.bit_length() // 2)
        self._shape = (-1, size // inner, inner)
        self._inner, self._outer = _hadamard(inner), _hadamard(size // inner)
        signs = np.random.default_rng(size).integers(0, 2, (2, size))
        self._signs = (2 * signs - 1).astype(np.float32)

    def rotate(self, vectors: Vectors) -> Vectors:
        """Return the coordinates of `vectors` after the rotation."""
        values = np.zeros((len(vectors), self.size), dtype=np.float32)
        values[:, : vectors.shape[1]] = vectors
        folded, between = values.reshape(self._shape), np.empty_like(values).reshape(self._shape)
        for signs in self._signs:
            np.multiply(values, signs, out=values)
            # The product of two small transforms is the large one, at the speed of BLAS.
            np.matmul(folded, self._inner, out=between)
            np.matmul(self._outer, between, out=folded)
        return values


@lru_cache(maxsize=8)
def rotation_of(size: int) -> Rotation:
    """Return the rotation of this size, the same in every process."""
    return Rotation(size)


def _hadamard(size: int) -> Vectors:
    """Return Sylvester's orthogonal float32[size, size]; `size` is a power of two."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / np.float32(sqrt(2))
    return matrix
