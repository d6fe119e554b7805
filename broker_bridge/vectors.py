"""Nearest neighbours among unit vectors: sign bits and Hamming distance first, then exact cosine.

Of each coordinate the sign is kept, after a random rotation unless the coordinates are as even as one would
leave them: 64 bytes for 512 dimensions. Two vectors of cosine c differ in Binomial(bits, arccos(c)/pi) of
those bits (Charikar 2002). So whoever is as similar as `floor` lies within a Hamming radius that can be
stated, and a search ranks *all* rows within it: no list can be too short. Where they are too many to pay, or
leave nobody to compare with, it is exact. FAISS or numpy counts bits: the answers are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import acos, pi, sqrt
from statistics import NormalDist
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Codes = NDArray[np.uint64]
Rows = NDArray[np.intp]
Engine = Literal["faiss", "numpy"]
Layout = Literal["C", "F"]
N = TypeVar("N", bound=np.generic)

DEFAULT_FLOOR = 0.5
EXACT_ROWS = 1000
"""Up to here looking at every vector is as fast as looking at bits first."""

_UNIT_TOLERANCE = 1e-3
# Standard deviations. A rotation's bits spread a fifth less than independent ones: by theirs this is six.
_DEVIATIONS = 5.0
# Re-ranked at the least, so that an answer below the floor is a near one too.
_LEAST_CANDIDATES = 32
# Past this share of the rows, picking them out costs as much as going through all.
_EXACT_SHARE = 0.25
_FEWEST_BITS = 64  # Fewer dimensions have too few directions for their signs to tell angles.
_BLOCK_ROWS = 256


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


class SignBits:
    """Vectors float32[n, d] to codes uint64[n, bits/64]: the signs of their coordinates, rotated if asked.

    The rotation is two rounds of random signs and a Walsh-Hadamard transform. One is not enough: where few
    coordinates outweigh the rest, as after a PCA, its rows repeat and the bits depend on each other.
    """

    def __init__(self, dimension: int, *, rotated: bool = True) -> None:
        self.dimension = dimension
        self.bits = max(_FEWEST_BITS, 1 << (dimension - 1).bit_length())
        inner = 1 << (self.bits.bit_length() // 2)
        self._shape = (-1, self.bits // inner, inner)
        self._inner, self._outer = _hadamard(inner), _hadamard(self.bits // inner)
        signs = np.random.default_rng(self.bits).integers(0, 2, (2, self.bits))
        self._signs = (2 * signs - 1).astype(np.float32)
        self._rotated = rotated or dimension < self.bits

    @classmethod
    def for_space_of(cls, vectors: Vectors) -> "SignBits":
        """Rotated unless the coordinates of (a sample of) `vectors` are like those of random directions."""
        sample = vectors[:: len(vectors) // 1024 + 1].astype(np.float64)
        count, dimension = sample.shape
        with np.errstate(invalid="ignore"):
            offset = np.square(sample.sum(axis=1)).sum()
            fourth = dimension * np.square(np.square(sample)).sum()
        # Of random directions the square of the sum is 1 in the mean, the sum of fourth powers 3 / dimension.
        even = offset < 2 * count and abs(fourth - 3 * count) < 0.5 * count
        return cls(dimension, rotated=not even)

    def of(self, vectors: Vectors) -> Codes:
        """The codes of finite vectors."""
        values = self._rotate(vectors) if self._rotated else vectors
        return np.packbits(values > 0, axis=1).view(np.uint64)

    def _rotate(self, vectors: Vectors) -> Vectors:
        values = np.zeros((len(vectors), self.bits), dtype=np.float32)
        values[:, : self.dimension] = vectors
        folded, between = values.reshape(self._shape), np.empty_like(values).reshape(self._shape)
        for signs in self._signs:
            np.multiply(values, signs, out=values)
            # A product of two small transforms is the large one, and runs at the speed of BLAS.
            np.matmul(folded, self._inner, out=between)
            np.matmul(self._outer, between, out=folded)
        return values


def _hadamard(size: int) -> Vectors:
    """float32[size, size], orthogonal, of a power of two (Sylvester); scaled so that lengths are kept."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / np.float32(sqrt(2))
    return matrix


@lru_cache(maxsize=64)
def search_radius(bits: int, floor: float, count: int) -> int:
    """The Hamming distance within which all of `count` rows with a cosine of `floor` or more lie; at least
    so wide that `_LEAST_CANDIDATES` unrelated rows are to be expected in it."""
    share = acos(max(-1.0, min(1.0, floor))) / pi
    bound = bits * share + _DEVIATIONS * sqrt(bits * share * (1 - share))
    unrelated = NormalDist(bits / 2, sqrt(bits) / 2)
    return int(max(bound, unrelated.inv_cdf(min(0.5, _LEAST_CANDIDATES / count))))


def _within_numpy(_: Any, codes: Codes, queries: Codes, radius: int) -> list[Rows]:
    """For each query the rows at a distance of at most `radius`, in ascending order."""
    different = np.empty(len(codes), dtype=np.uint64)
    ones = np.empty(len(codes), dtype=np.uint8)
    found: list[Rows] = []
    for query in queries:
        distances = np.zeros(len(codes), dtype=np.uint16)
        for word, of_query in zip(codes.T, query, strict=True):
            np.bitwise_xor(word, of_query, out=different)
            np.bitwise_count(different, out=ones)
            np.add(distances, ones, out=distances)
        found.append(np.flatnonzero(distances <= radius))
    return found


def _within_faiss(faiss: Any, codes: Codes, queries: Codes, radius: int) -> list[Rows]:
    # For this thread's calls: helpers would wait for cores that the networks' threads are spinning on.
    faiss.omp_set_num_threads(1)
    result = faiss.RangeSearchResult(len(queries))
    pointers = [faiss.swig_ptr(array.view(np.uint8)) for array in (queries, codes)]
    # FAISS leaves the radius itself out.
    faiss.hamming_range_search(*pointers, len(queries), len(codes), radius + 1, 8 * codes.shape[1], result)
    # The result owns these arrays and ends with this call.
    limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).tolist()
    return np.split(faiss.rev_swig_ptr(result.labels, limits[-1]).copy(), limits[1:-1])


class VectorIndex:
    """Unit vectors float32[d], several per key. `engine` None: FAISS where it is installed, else numpy.

    Searches may run in several threads at once; `put` and `remove` must be alone with the index. ValueError
    for vectors of another shape or type, and on the way in for those that are not finite and of unit length.
    """

    def __init__(self, dimension: int, engine: Engine | None = None) -> None:
        self.dimension = dimension
        self._bits = SignBits(dimension)
        self.engine = engine or ("faiss" if find_spec("faiss") else "numpy")
        self._faiss: Any = import_module("faiss") if self.engine == "faiss" else None
        # numpy runs over one word of all rows at a time, FAISS over all words of a row.
        self._layout: Layout = "C" if self._faiss else "F"
        self._count = 0
        self._vectors: Vectors = np.empty((0, dimension), dtype=np.float32)
        self._codes: Codes = np.empty((0, self._bits.bits // 64), dtype=np.uint64)
        self._numbers: dict[str, int] = {}
        self._keys: list[str] = []
        self._free: list[int] = []
        self._owners = np.empty(0, dtype=np.int32)  # Of each row, the number of its key.

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
        self._codes = np.empty((len(keys), self._bits.bits // 64), dtype=np.uint64, order=self._layout)
        for start in range(0, len(keys), _BLOCK_ROWS):  # Blocks stay in the cache through all steps.
            block = slice(start, start + _BLOCK_ROWS)
            self._codes[block] = self._encoded(vectors[block])
        self._vectors = vectors.view()
        self._vectors.flags.writeable = False
        self._keys = list(dict.fromkeys(keys))
        self._numbers = {key: number for number, key in enumerate(self._keys)}
        self._owners = np.fromiter(map(self._numbers.__getitem__, keys), np.int32, len(keys))
        self._count = len(keys)

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
        self._numbers[key] = number
        rows = slice(self._count, self._count + len(vectors))
        self._vectors[rows], self._codes[rows], self._owners[rows] = vectors, codes, number
        self._count += len(vectors)

    def remove(self, key: str) -> None:
        """Forget `key`, if it is there, and overwrite its numbers."""
        number = self._numbers.pop(key, None)
        if number is None:
            return
        self._reserve(0)
        self._keys[number] = ""
        self._free.append(number)
        # From the end: the last row, which fills the gap, is then never one of those that go.
        for row in np.flatnonzero(self._owners[: self._count] == number)[::-1].tolist():
            last = self._count = self._count - 1
            for array in (self._vectors, self._codes, self._owners):
                array[row] = array[last]
                array[last] = 0

    def _reserve(self, more: int) -> None:
        if self._vectors.flags.writeable and self._count + more <= len(self._vectors):
            return
        capacity = self._count + max(more, self._count // 2)
        self._vectors = self._grown(self._vectors, capacity, "C")
        self._codes = self._grown(self._codes, capacity, self._layout)
        self._owners = self._grown(self._owners, capacity, "C")

    def _grown(self, array: NDArray[N], capacity: int, order: Layout) -> NDArray[N]:
        grown = np.zeros((capacity, *array.shape[1:]), dtype=array.dtype, order=order)
        grown[: self._count] = array[: self._count]
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
            answers[place] = self._nearest(unit, rows if self._tell_two_apart(rows) else slice(self._count))
        return answers

    def rank(self, query: Vectors, limit: int, floor: float = DEFAULT_FLOOR) -> list[Ranked]:
        """Up to `limit` keys with a similarity of `floor` or more to `query` float32[d], most similar first.

        Each once, by the best of its vectors, as an exact search would. Nobody for a query that is zero
        or not finite.
        """
        _, units = self._usable(query[np.newaxis])
        best: dict[int, float] = {}
        for unit, rows in zip(units, self._candidates(units, floor), strict=True):
            similarities, owners = np.vecdot(self._vectors[rows], unit), self._owners[rows]
            near = np.flatnonzero(similarities >= floor)
            for place in near[np.argsort(-similarities[near], kind="stable")]:
                if len(best) >= limit:
                    break
                best.setdefault(int(owners[place]), min(1.0, float(similarities[place])))
        return [Ranked(self._keys[owner], similarity) for owner, similarity in best.items()]

    def _usable(self, queries: Vectors) -> tuple[Rows, Vectors]:
        """Which queries have a direction, and those at unit length; none if there is nobody to find."""
        self._check(queries)
        squares = _squares(queries)
        usable = np.flatnonzero(np.isfinite(squares) & (squares > 0) & (self._count > 0))
        return usable, (queries[usable] / np.sqrt(squares[usable, None])).astype(np.float32, copy=False)

    def _candidates(self, units: Vectors, floor: float) -> Sequence[Rows | slice]:
        """For each query all rows that can reach `floor`; or every row, where that costs no more."""
        every = slice(self._count)
        radius = search_radius(self._bits.bits, floor, max(1, self._count))
        if not len(units):
            return []
        if self._count <= EXACT_ROWS or self.dimension < _FEWEST_BITS or radius >= self._bits.bits // 2:
            return [every] * len(units)
        within = _within_faiss if self._faiss else _within_numpy
        near = within(self._faiss, self._codes[: self._count], self._bits.of(units), radius)
        return [rows if len(rows) <= self._count * _EXACT_SHARE else every for rows in near]

    def _tell_two_apart(self, rows: Rows | slice) -> bool:
        """Whether two keys at least are among `rows`."""
        owners = self._owners[rows]
        return len(owners) > 0 and bool((owners != owners[0]).any())

    def _nearest(self, unit: Vectors, rows: Rows | slice) -> Nearest:
        # Not a matrix-vector product: that sums differently for another number of rows, and starts threads of
        # BLAS, which on a busy machine wait for each other for milliseconds.
        similarities: Vectors = np.vecdot(self._vectors[rows], unit)
        owners = self._owners[rows]
        best = similarities.argmax()
        others = np.where(owners == owners[best], np.float32(-1), similarities)
        second = others.argmax()
        other = None if owners[second] == owners[best] else self._keys[owners[second]]
        # Rounding may carry a cosine past 1.
        nearest, runner_up = min(1.0, float(similarities[best])), min(1.0, float(others[second]))
        return Nearest(self._keys[owners[best]], nearest, runner_up, other)
