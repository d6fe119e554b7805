"""Nearest neighbours among unit vectors: sign bits and Hamming distance first, then exact cosine.

Whoever is as similar as `floor` lies within a Hamming radius that can be stated (`sign_bits.search_radius`),
and a search ranks *all* rows within it: no list can be too short. Where they are too many to pay, or leave
nobody to compare with, it is exact. FAISS or numpy counts bits: the answers are the same.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .sign_bits import FEWEST_BITS, BitScan, Codes, Engine, Layout, Rows, SignBits, Vectors, search_radius

N = TypeVar("N", bound=np.generic)

DEFAULT_FLOOR = 0.5
EXACT_ROWS = 1000
"""Up to here looking at every vector is as fast as looking at bits first."""

_UNIT_TOLERANCE = 1e-3
# Past this share of the rows, picking them out costs as much as going through all.
_EXACT_SHARE = 0.25
_BLOCK_ROWS = 256
_LEAST_GROWTH = 64


@dataclass(frozen=True)
class Nearest:
    """The key with the most similar vector, its cosine, and that of the best *other* key (-1: no other)."""

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
    """bool[n]: which rows are of unit length, and so finite: NaN fails the comparison too."""
    return np.abs(_squares(vectors) - 1) < 2 * _UNIT_TOLERANCE


def _squares(vectors: Vectors) -> Vectors:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", vectors, vectors), dtype=np.float32)


class VectorIndex:
    """Unit vectors float32[d], several per key. `engine` None: FAISS where it is installed, else numpy.

    Searches may run in several threads at once; `put` and `remove` must be alone with the index. ValueError
    for vectors of another shape or type, and on the way in for those that are not finite and of unit length.
    """

    def __init__(self, dimension: int, engine: Engine | None = None) -> None:
        self.dimension = dimension
        self._bits = SignBits(dimension)
        self._scan = BitScan(engine)
        self.engine = self._scan.engine
        self._count = 0
        self._vectors: Vectors = np.empty((0, dimension), dtype=np.float32)
        self._codes: Codes = np.empty((0, self._bits.bits // 64), dtype=np.uint64)
        self._numbers: dict[str, int] = {}
        self._keys: list[str] = []
        self._free: list[int] = []
        # Of each row, the number of its key and that key's next row; of each key, its first. -1: no more.
        self._owners = np.empty(0, dtype=np.int32)
        self._next = np.empty(0, dtype=np.int32)
        self._first = array("i")

    @classmethod
    def of(cls, keys: Sequence[str], vectors: Vectors, engine: Engine | None = None) -> "VectorIndex":
        """Row i of `vectors` float32[n, d] is of `keys[i]`. Not copied until a change; never written to."""
        if vectors.ndim != 2 or len(keys) != len(vectors):
            raise ValueError(f"expected one vector for each of {len(keys)} keys, got {list(vectors.shape)}")
        index = cls(vectors.shape[1], engine)
        index._adopt(keys, vectors)
        return index

    def _adopt(self, keys: Sequence[str], vectors: Vectors) -> None:
        if len(keys) > EXACT_ROWS:
            self._bits = SignBits.for_space_of(vectors)
        self._codes = np.empty((len(keys), self._bits.bits // 64), dtype=np.uint64, order=self._scan.layout)
        for start in range(0, len(keys), _BLOCK_ROWS):  # Blocks stay in the cache through all steps.
            block = slice(start, start + _BLOCK_ROWS)
            self._codes[block] = self._encoded(vectors[block])
        self._vectors = vectors.view()
        self._vectors.flags.writeable = False
        self._keys = list(dict.fromkeys(keys))
        self._numbers = {key: number for number, key in enumerate(self._keys)}
        self._owners = np.fromiter(map(self._numbers.__getitem__, keys), np.int32, len(keys))
        self._count = len(keys)
        self._chain_rows()

    def _chain_rows(self) -> None:
        order = np.argsort(self._owners, kind="stable").astype(np.int32)
        same = np.diff(self._owners[order], prepend=-1) == 0
        self._first.frombytes(order[~same].tobytes())
        self._next = np.full(len(order), -1, dtype=np.int32)
        self._next[order[:-1][same[1:]]] = order[1:][same[1:]]

    def __len__(self) -> int:
        """The number of vectors."""
        return self._count

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key once; after bulk construction in the order of their first rows."""
        return tuple(self._numbers)

    def put(self, key: str, vectors: Vectors) -> None:
        """Make `vectors` (float32[m, d]) all that `key` has."""
        codes = self._encoded(vectors)
        self.remove(key)
        if not len(vectors):
            return
        self._reserve(len(vectors))
        number = self._free.pop() if self._free else len(self._keys)
        self._keys[number : number + 1] = [key]
        self._first[number : number + 1] = array("i", [self._count])
        self._numbers[key] = number
        rows = slice(self._count, self._count + len(vectors))
        self._vectors[rows], self._codes[rows], self._owners[rows] = vectors, codes, number
        self._next[rows] = np.arange(rows.start + 1, rows.stop + 1)
        self._next[rows.stop - 1] = -1
        self._count = rows.stop

    def remove(self, key: str) -> None:
        """Forget `key`, if it is there, and overwrite its numbers."""
        number = self._numbers.pop(key, None)
        if number is None:
            return
        self._reserve(0)
        self._keys[number] = ""
        self._free.append(number)
        # From the end: the last row, which fills the gap, is then never one of those that go.
        for row in sorted(self._rows_of(number), reverse=True):
            last = self._count = self._count - 1
            if row != last:
                self._redirect(last, row)
            for column in (self._vectors, self._codes, self._owners, self._next):
                column[row] = column[last]
                column[last] = 0

    def _rows_of(self, number: int) -> Iterator[int]:
        row = self._first[number]
        while row >= 0:
            yield row
            row = int(self._next[row])

    def _redirect(self, row: int, to: int) -> None:
        """Whatever leads to `row` leads to `to`."""
        owner = int(self._owners[row])
        if self._first[owner] == row:
            self._first[owner] = to
        else:
            before = next(one for one in self._rows_of(owner) if self._next[one] == row)
            self._next[before] = to

    def _reserve(self, more: int) -> None:
        if self._vectors.flags.writeable and self._count + more <= len(self._vectors):
            return
        capacity = self._count + max(more, _LEAST_GROWTH, self._count // 16)
        if self._vectors.flags.writeable:
            # In place, so that they are never there twice. Nobody else has them: answers hold none of them.
            self._vectors.resize((capacity, self.dimension), refcheck=False)
        else:
            self._vectors = self._grown(self._vectors, capacity, "C")
        self._codes = self._grown(self._codes, capacity, self._scan.layout)
        self._owners = self._grown(self._owners, capacity, "C")
        self._next = self._grown(self._next, capacity, "C")

    def _grown(self, rows: NDArray[N], capacity: int, order: Layout) -> NDArray[N]:
        grown = np.zeros((capacity, *rows.shape[1:]), dtype=rows.dtype, order=order)
        grown[: self._count] = rows[: self._count]
        return grown

    def _check(self, vectors: Vectors) -> None:
        if vectors.shape[1:] != (self.dimension,) or vectors.dtype != np.float32:
            raise ValueError(
                f"expected float32[n, {self.dimension}], got {vectors.dtype}{list(vectors.shape)}"
            )

    def _encoded(self, vectors: Vectors) -> Codes:
        self._check(vectors)
        if not are_units(vectors).all():
            raise ValueError("vectors are finite and of unit length, some of these are not")
        return self._bits.of(vectors)

    def search(self, queries: Vectors, floor: float = DEFAULT_FLOOR) -> list[Nearest | None]:
        """The nearest key of each of `queries` (float32[q, d]); None for one that is zero or not finite.

        Similarities of `floor` and more, also the runner-up's, are those of an exact search; lower ones are
        the best of the nearest few by sign bits.
        """
        answers: list[Nearest | None] = [None] * len(queries)
        usable, units = self._usable(queries)
        for place, unit, rows in zip(usable, units, self._candidates(units, floor), strict=True):
            answers[place] = self._nearest(unit, rows)
        return answers

    def rank(self, query: Vectors, limit: int, floor: float = DEFAULT_FLOOR) -> list[Ranked]:
        """Up to `limit` keys with a similarity of `floor` or more to `query` float32[d], most similar first.

        Each once, by the best of its vectors, as an exact search would. Nobody for a query that is zero
        or not finite.
        """
        _, units = self._usable(query[np.newaxis])
        best: dict[int, float] = {}
        for unit, rows in zip(units, self._candidates(units, floor), strict=True):
            similarities, owners = self._similarities(unit, rows), self._owners[rows]
            near = np.flatnonzero(similarities >= floor)
            for place in near[np.argsort(-similarities[near], kind="stable")]:
                if len(best) >= limit:
                    break
                best.setdefault(int(owners[place]), min(1.0, float(similarities[place])))
        return [Ranked(self._keys[owner], similarity) for owner, similarity in best.items()]

    def _usable(self, queries: Vectors) -> tuple[list[int], Vectors]:
        """Which queries have a direction, and those at unit length; none if there is nobody to find."""
        self._check(queries)
        squares = _squares(queries)
        usable = [place for place, square in enumerate(squares.tolist()) if self._count and 0 < square < inf]
        if len(usable) < len(queries):
            queries, squares = queries[usable], squares[usable]
        return usable, (queries / np.sqrt(squares)[:, np.newaxis]).astype(np.float32, copy=False)

    def _candidates(self, units: Vectors, floor: float) -> Sequence[Rows | slice]:
        """For each query all rows that can reach `floor`; or every row, where that costs no more."""
        every = slice(self._count)
        radius = search_radius(self._bits.bits, floor, max(1, self._count))
        if not len(units):
            return []
        if self._count <= EXACT_ROWS or self.dimension < FEWEST_BITS or radius >= self._bits.bits // 2:
            return [every] * len(units)
        near = self._scan.within(self._codes[: self._count], self._bits.of(units), radius)
        return [rows if len(rows) <= self._count * _EXACT_SHARE else every for rows in near]

    def _nearest(self, unit: Vectors, rows: Rows | slice) -> Nearest:
        owners = self._owners[rows]
        if not len(owners):
            return self._nearest(unit, slice(self._count))
        similarities = self._similarities(unit, rows)
        best = similarities.argmax()
        others = np.where(owners == owners[best], np.float32(-1), similarities)
        second = others.argmax()
        alone = owners[second] == owners[best]
        if alone and len(owners) < self._count:
            return self._nearest(unit, slice(self._count))
        other = None if alone else self._keys[owners[second]]
        # Rounding may carry a cosine past 1.
        nearest, runner_up = min(1.0, float(similarities[best])), min(1.0, float(others[second]))
        return Nearest(self._keys[owners[best]], nearest, runner_up, other)

    def _similarities(self, unit: Vectors, rows: Rows | slice) -> Vectors:
        # Not a matrix-vector product: that sums differently for another number of rows, and starts threads of
        # BLAS, which on a busy machine wait for each other for milliseconds.
        similarities: Vectors = np.vecdot(self._vectors[rows], unit)
        return similarities
