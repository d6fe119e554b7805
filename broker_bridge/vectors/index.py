"""Find nearest neighbours among unit vectors: by sign bits, then by exact cosine.

Sign codes bound the cosine of each row to a query (`sign_bits`), and a search compares all rows that may
reach `floor`. It compares every row where these are too many, or none, and in a small index. FAISS or numpy
counts bits; their answers are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from .bit_scan import Engine, Rows
from .coded_rows import CodedRows
from .rotation import Vectors
from .sign_bits import UNIT_TOLERANCE

DEFAULT_FLOOR = 0.5
EXACT_ROWS = 1000
"""Up to this number of rows comparing every vector is as fast as comparing bits first."""

_MIN_GROWTH = 64


@dataclass(frozen=True)
class Nearest:
    """The key with the most similar vector, and the best *other* key.

    `runner_up` is -1 and `runner_up_key` None if there is no other key.
    """

    key: str
    similarity: float
    runner_up: float
    runner_up_key: str | None = None


@dataclass(frozen=True)
class Ranked:
    """A key and the cosine of the most similar of its vectors."""

    key: str
    similarity: float


def are_units(vectors: Vectors) -> NDArray[np.bool_]:
    """Return bool[n]: which rows are of unit length, and so finite.

    NaN fails the comparison too.
    """
    return np.abs(_squares(vectors) - 1) < 2 * UNIT_TOLERANCE


def _squares(vectors: Vectors) -> Vectors:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", vectors, vectors), dtype=np.float32)


class VectorIndex:
    """Unit vectors float32[d], several per key.

    `engine` None selects FAISS if it is installed, else numpy. Several threads may search at once; `put` and
    `remove` need the index for themselves. Raises ValueError for vectors of another shape or type, and for
    stored vectors that are not finite and of unit length.
    """

    def __init__(self, dimension: int, engine: Engine | None = None) -> None:
        self.dimension = dimension
        self._coded = CodedRows(dimension, engine)
        self.engine = self._coded.engine
        self._count = 0
        self._vectors: Vectors = np.empty((0, dimension), dtype=np.float32)
        self._rows: dict[str, tuple[int, ...]] = {}
        self._keys: list[str] = []  # By row.

    @classmethod
    def from_vectors(
        cls, keys: Sequence[str], vectors: Vectors, engine: Engine | None = None
    ) -> "VectorIndex":
        """Build an index in which row i of `vectors` float32[n, d] belongs to `keys[i]`.

        The index copies `vectors` at its first change, and never writes to them.
        """
        if vectors.ndim != 2 or len(keys) != len(vectors):
            raise ValueError(f"expected one vector for each of {len(keys)} keys, got {list(vectors.shape)}")
        index = cls(vectors.shape[1], engine)
        index._adopt(keys, vectors)
        return index

    def _adopt(self, keys: Sequence[str], vectors: Vectors) -> None:
        self._check_units(vectors)
        self._vectors = vectors.view()
        self._vectors.flags.writeable = False
        self._keys = list(keys)
        for row, key in enumerate(keys):
            self._rows[key] = (*self._rows.get(key, ()), row)
        self._count = len(keys)
        self._coded.resize(0, len(keys))
        self._fit()

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._count

    @property
    def keys(self) -> tuple[str, ...]:
        """Return every key once; after `from_vectors` in the order of their first rows."""
        return tuple(self._rows)

    def put(self, key: str, vectors: Vectors) -> None:
        """Replace all vectors of `key` by `vectors` (float32[m, d])."""
        self._check_units(vectors)
        self.remove(key)
        if not len(vectors):
            return
        self._reserve(len(vectors))
        rows = slice(self._count, self._count + len(vectors))
        self._vectors[rows] = vectors
        self._coded.put(rows.start, vectors)
        self._keys += [key] * len(vectors)
        self._rows[key] = tuple(range(rows.start, rows.stop))
        self._count = rows.stop
        self._fit()

    def remove(self, key: str) -> None:
        """Remove `key`, if it exists, and overwrite its vectors."""
        rows = self._rows.pop(key, None)
        if rows is None:
            return
        self._reserve(0)
        # From the end: the last row, which fills the gap, is then never one of those to remove.
        for row in sorted(rows, reverse=True):
            last = self._count = self._count - 1
            last_key = self._keys.pop()
            if row != last:
                self._keys[row] = last_key
                self._rows[last_key] = tuple(row if own == last else own for own in self._rows[last_key])
            for column in (self._vectors, *self._coded.columns):
                column[row] = column[last]
                column[last] = 0
        self._fit()

    def _fit(self) -> None:
        if self._count > EXACT_ROWS:
            self._coded.fit(self._vectors[: self._count])

    def _reserve(self, more: int) -> None:
        if self._vectors.flags.writeable and self._count + more <= len(self._vectors):
            return
        capacity = self._count + max(more, _MIN_GROWTH, self._count // 16)
        if self._vectors.flags.writeable:
            # In place, so that memory never contains them twice. Answers share no memory with the vectors.
            self._vectors.resize((capacity, self.dimension), refcheck=False)
        else:
            grown = np.zeros((capacity, self.dimension), dtype=np.float32)
            grown[: self._count] = self._vectors[: self._count]
            self._vectors = grown
        self._coded.resize(self._count, capacity)

    def _check(self, vectors: Vectors) -> None:
        if vectors.shape[1:] != (self.dimension,) or vectors.dtype != np.float32:
            raise ValueError(
                f"expected float32[n, {self.dimension}], got {vectors.dtype}{list(vectors.shape)}"
            )

    def _check_units(self, vectors: Vectors) -> None:
        self._check(vectors)
        if not are_units(vectors).all():
            raise ValueError("vectors are finite and of unit length, some of these are not")

    def search(self, queries: Vectors, floor: float = DEFAULT_FLOOR) -> list[Nearest | None]:
        """Return the nearest key of each of `queries` (float32[q, d]).

        None for a query that is zero or not finite, and in an empty index. Similarities of `floor` and more,
        also the runner-up's, are those of an exact search; lower ones are the best among the nearest rows by
        sign bits.
        """
        answers: list[Nearest | None] = [None] * len(queries)
        usable, units = self._select_usable(queries)
        for position, unit, rows in zip(usable, units, self._candidates(units, floor), strict=True):
            answers[position] = self._nearest(unit, rows)
        return answers

    def rank(self, query: Vectors, limit: int, floor: float = DEFAULT_FLOOR) -> list[Ranked]:
        """Return up to `limit` keys at `floor` or more, most similar first.

        `query` is float32[d]. Each key is ranked once, by the best of its vectors, as an exact search would.
        Empty for a query that is zero or not finite.
        """
        _, units = self._select_usable(query[np.newaxis])
        best: dict[str, float] = {}
        for unit, rows in zip(units, self._candidates(units, floor), strict=True):
            similarities = self._similarities(unit, rows)
            near = np.flatnonzero(similarities >= floor)
            for position in near[np.argsort(-similarities[near], kind="stable")].tolist():
                if len(best) >= limit:
                    break
                key = self._keys[_row_at(rows, position)]
                best.setdefault(key, min(1.0, float(similarities[position])))
        return [Ranked(key, similarity) for key, similarity in best.items()]

    def _select_usable(self, queries: Vectors) -> tuple[list[int], Vectors]:
        """Return the positions of queries with a direction, and these at unit length.

        Both are empty if the index is.
        """
        self._check(queries)
        squares = _squares(queries)
        usable = [
            position for position, square in enumerate(squares.tolist()) if self._count and 0 < square < inf
        ]
        if len(usable) < len(queries):
            queries, squares = queries[usable], squares[usable]
        return usable, (queries / np.sqrt(squares)[:, np.newaxis]).astype(np.float32, copy=False)

    def _candidates(self, units: Vectors, floor: float) -> Sequence[Rows | None]:
        """Return for each query all rows that may reach `floor`, ascending.

        None means every row, where comparing them takes no longer.
        """
        if self._count <= EXACT_ROWS:
            return [None] * len(units)
        return self._coded.select(units, floor, self._count)

    def _nearest(self, unit: Vectors, rows: Rows | None) -> Nearest:
        if rows is not None and not len(rows):
            rows = None
        similarities = self._similarities(unit, rows)
        best = int(similarities.argmax())
        key = self._keys[_row_at(rows, best)]
        # Rounding may carry a cosine past 1.
        similarity = min(1.0, float(similarities[best]))
        own = _positions_of(self._rows[key], rows)
        if len(own) == len(similarities):
            return Nearest(key, similarity, -1.0) if rows is None else self._nearest(unit, None)
        similarities[own] = -inf
        second = int(similarities.argmax())
        return Nearest(
            key, similarity, min(1.0, float(similarities[second])), self._keys[_row_at(rows, second)]
        )

    def _similarities(self, unit: Vectors, rows: Rows | None) -> Vectors:
        # Not a matrix-vector product: its sums depend on the number of rows, and it starts threads of BLAS,
        # which on a busy machine wait for each other for milliseconds.
        selected = self._vectors[: self._count] if rows is None else self._vectors[rows]
        similarities: Vectors = np.vecdot(selected, unit)
        return similarities


def _row_at(rows: Rows | None, position: int) -> int:
    return position if rows is None else int(rows[position])


def _positions_of(own: Sequence[int], rows: Rows | None) -> list[int]:
    """Return where the rows `own` stand in `rows`, ascending; None means every row."""
    if rows is None:
        return list(own)
    positions = np.searchsorted(rows, own)
    return [
        position
        for position, row in zip(positions.tolist(), own, strict=True)
        if position < len(rows) and rows[position] == row
    ]
