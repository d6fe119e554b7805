"""Keep the sign codes of a growing matrix, and select rows near a query."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .bit_scan import BitScan, Engine, Layout, Rows
from .rotation import Vectors
from .sign_bits import (
    MIN_BITS,
    Codes,
    Floats,
    QueryCode,
    SignBits,
    nearest_radius,
    required_cosine,
    search_radius,
)

N = TypeVar("N", bound=np.generic)

# Rows that are selected at least, so that an answer below the floor, and a runner-up, are near ones too.
_NEAREST = 32
# As many rows are compared as soon as bounded.
_FEW = 256
# Past this share of the rows, selecting them takes as long as comparing all.
_EXACT_SHARE = 0.25
# Below this required cosine, bits rule out too few rows.
_LEAST_COSINE = 0.1
# The mean is that of about so many rows.
_SAMPLE_ROWS = 512
# A mean that moved by less than this share of the rows' variance stays.
_MOVED = 0.1
_BLOCK_ROWS = 256


class CodedRows:
    """The sign codes of the rows of a matrix, around the mean of these rows.

    The mean is measured by `fit`: at first, and when the number of rows has doubled or halved. Without it no
    row is coded, and every row is selected.
    """

    def __init__(self, dimension: int, engine: Engine | None) -> None:
        self._scan = BitScan(engine)
        self.engine = self._scan.engine
        self._bits = SignBits(np.zeros(dimension, dtype=np.float32))
        self._codes: Codes = np.empty((0, self._bits.bits // 64), dtype=np.uint64)
        self._facts: Floats = np.empty((0, 2), dtype=np.float32)
        self._squares = (np.inf, 0.0)
        self._fitted_at = 0

    @property
    def columns(self) -> tuple[Codes, Floats]:
        """Return all that is kept by row."""
        return self._codes, self._facts

    def resize(self, count: int, capacity: int) -> None:
        """Make room for `capacity` rows; the first `count` stay."""
        self._codes = _grow(self._codes, count, capacity, self._scan.layout)
        self._facts = _grow(self._facts, count, capacity, "C")

    def fit(self, vectors: Vectors) -> None:
        """Measure the mean of all rows, where due, and code them around it."""
        count, dimension = vectors.shape
        if dimension < MIN_BITS or self._fitted_at / 2 <= count <= self._fitted_at * 2:
            return
        bits = SignBits.for_space_of(vectors[:: count // _SAMPLE_ROWS + 1])
        moved = bits.mean - self._bits.mean
        has_moved = moved @ moved > _MOVED * (1 - bits.mean @ bits.mean)
        if not self._fitted_at or has_moved or bits.rotated > self._bits.rotated:
            self._bits, self._squares = bits, (np.inf, 0.0)
            self._encode(0, vectors)
        self._fitted_at = count

    def put(self, first: int, vectors: Vectors) -> None:
        """Code the rows from `first` on."""
        if self._fitted_at:
            self._encode(first, vectors)

    def _encode(self, first: int, vectors: Vectors) -> None:
        for start in range(0, len(vectors), _BLOCK_ROWS):  # Blocks stay in the cache through all steps.
            codes, facts = self._bits.encode(vectors[start : start + _BLOCK_ROWS])
            rows = slice(first + start, first + start + len(codes))
            self._codes[rows], self._facts[rows] = codes, facts
            least, most = self._squares
            self._squares = min(least, float(facts[:, 0].min())), max(most, float(facts[:, 0].max()))

    def select(self, units: Vectors, floor: float, count: int) -> list[Rows | None]:
        """Return for each query the rows that may reach `floor`, ascending.

        They are among the first `count`. None means every row, where comparing them takes no longer.
        """
        if not self._fitted_at:
            return [None] * len(units)
        return [self._select(query, floor, count) for query in self._bits.encode_queries(units)]

    def _select(self, query: QueryCode, floor: float, count: int) -> Rows | None:
        cosine = required_cosine(query, floor, self._squares)
        if cosine < _LEAST_COSINE:
            return None
        bits = self._bits.bits
        radius = search_radius(bits, cosine)
        widest = max(radius, nearest_radius(bits, count))
        rows, distances = self._scan.find_within(self._codes[:count], query.signs, widest)
        if len(rows) > _FEW and widest > radius:  # In an uneven space, far more rows than expected lie in it.
            near = _reach(-distances, -radius)
            rows, distances = rows[near], distances[near]
        if len(rows) > _FEW:
            # `take` is several times as fast as indexing.
            codes, facts = self._codes.take(rows, axis=0), self._facts.take(rows, axis=0)
            rows = rows[_reach(self._bits.exceed(query, floor, codes, distances, facts), 0)]
        return rows if len(rows) <= count * _EXACT_SHARE else None


def _reach(values: Floats, limit: float) -> NDArray[np.bool_]:
    """Return which of `values` reach `limit`, or as the nearest come next to it."""
    if np.count_nonzero(values >= limit) < _NEAREST:
        least = min(_NEAREST, len(values))
        limit = np.partition(values, -least)[-least] if least else limit
    reached: NDArray[np.bool_] = values >= limit
    return reached


def _grow(rows: NDArray[N], count: int, capacity: int, order: Layout) -> NDArray[N]:
    grown = np.zeros((capacity, *rows.shape[1:]), dtype=rows.dtype, order=order)
    grown[:count] = rows[:count]
    return grown
