"""Encode unit vectors as sign bits, and find the codes within a Hamming distance.

A code has one bit per coordinate, its sign: 64 bytes for 512 dimensions. A random rotation precedes it,
unless the coordinates are as even as after one. Two vectors at an angle of t differ in a share t/pi of the
bits on average (Charikar 2002). The rotation's rows are orthogonal, so the bits scatter less around that
share than independent bits (Ji et al. 2012, "Super-Bit Locality-Sensitive Hashing"): see `search_radius`.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from math import acos, pi, sin, sqrt
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Codes = NDArray[np.uint64]
Rows = NDArray[np.intp]
Engine = Literal["faiss", "numpy"]
Layout = Literal["C", "F"]

MIN_BITS = 64
"""The signs of fewer dimensions do not estimate angles."""

_DEVIATIONS = 5.5
# Expected within the radius at least, so that an answer below the floor is a near one too.
_MIN_CANDIDATES = 16
# numpy's passes over this many rows stay in the processor's cache.
_BLOCK_ROWS = 32_768
# From this many rows on a thread saves more than its start takes.
_THREAD_ROWS = 250_000


class SignBits:
    """The encoder of vectors float32[n, d] as codes uint64[n, bits/64].

    The rotation is two rounds of random signs and a Walsh-Hadamard transform. After one round, where few
    coordinates outweigh the rest as after a PCA, rows repeat and the bits depend on each other.
    """

    def __init__(self, dimension: int, *, rotated: bool = True) -> None:
        self.dimension = dimension
        self.bits = max(MIN_BITS, 1 << (dimension - 1).bit_length())
        inner = 1 << (self.bits.bit_length() // 2)
        self._shape = (-1, self.bits // inner, inner)
        self._inner, self._outer = _hadamard(inner), _hadamard(self.bits // inner)
        signs = np.random.default_rng(self.bits).integers(0, 2, (2, self.bits))
        self._signs = (2 * signs - 1).astype(np.float32)
        self._rotated = rotated or dimension < self.bits

    @classmethod
    def for_space_of(cls, vectors: Vectors) -> "SignBits":
        """Return an encoder that rotates unless `vectors` look like random directions.

        A sample of about a thousand vectors decides.
        """
        sample = vectors[:: len(vectors) // 1024 + 1].astype(np.float64)
        count, dimension = sample.shape
        with np.errstate(invalid="ignore"):
            offset = np.square(sample.sum(axis=1)).sum()
            fourth = dimension * np.square(np.square(sample)).sum()
        # Random directions have a mean squared sum of 1, and a mean sum of fourth powers of 3 / dimension.
        even = offset < 2 * count and abs(fourth - 3 * count) < 0.5 * count
        return cls(dimension, rotated=not even)

    def encode(self, vectors: Vectors) -> Codes:
        """Return the codes of finite vectors."""
        values = self._rotate(vectors) if self._rotated else vectors
        return np.packbits(values > 0, axis=1).view(np.uint64)

    def _rotate(self, vectors: Vectors) -> Vectors:
        values = np.zeros((len(vectors), self.bits), dtype=np.float32)
        values[:, : self.dimension] = vectors
        folded, between = values.reshape(self._shape), np.empty_like(values).reshape(self._shape)
        for signs in self._signs:
            np.multiply(values, signs, out=values)
            # The product of two small transforms is the large one, at the speed of BLAS.
            np.matmul(folded, self._inner, out=between)
            np.matmul(self._outer, between, out=folded)
        return values


def _hadamard(size: int) -> Vectors:
    """Return Sylvester's orthogonal float32[size, size]; `size` is a power of two."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / np.float32(sqrt(2))
    return matrix


@lru_cache(maxsize=64)
def search_radius(bits: int, floor: float, count: int) -> int:
    """Return the Hamming radius that contains all of `count` rows at `floor` or more.

    `floor` is a cosine. The radius is so wide that at least 16 unrelated rows are expected in it.
    """
    mean, deviation = expected_distance(bits, floor)
    unrelated = NormalDist(bits / 2, sqrt(bits) / 2)
    nearest = unrelated.inv_cdf(min(0.5, _MIN_CANDIDATES / count))
    return int(max(mean + _DEVIATIONS * deviation, nearest))


def expected_distance(bits: int, cosine: float) -> tuple[float, float]:
    """Return mean and standard deviation of the Hamming distance at `cosine`.

    Both are over all rotations. With p = t/pi the variance is bits * (p * (1 - p) - sin(t)**2 / pi**2) for
    many bits. The first term is that of independent bits; the second is their dependence, since a rotation
    preserves lengths and angle.
    """
    angle = acos(max(-1.0, min(1.0, cosine)))
    share = angle / pi
    return bits * share, sqrt(bits * max(0.0, share * (1 - share) - (sin(angle) / pi) ** 2))


class BitScan:
    """Counts differing bits with FAISS or numpy.

    Both find the same rows with any number of threads. `engine` None selects FAISS if it is installed, else
    numpy.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine: Engine = engine or ("faiss" if find_spec("faiss") else "numpy")
        self._faiss: Any = import_module("faiss") if self.engine == "faiss" else None
        # numpy reads one word of all rows at a time, FAISS all words of one row.
        self.layout: Layout = "C" if self._faiss else "F"
        self._pool: ThreadPoolExecutor | None = None

    def find_within(self, codes: Codes, queries: Codes, radius: int) -> list[Rows]:
        """Return for each of `queries` the rows of `codes` within `radius`, ascending."""
        scan = self._within_faiss if self._faiss else _within_numpy
        parts = len(codes) // _THREAD_ROWS
        # `os.cpu_count` reads a file.
        parts = min(os.cpu_count() or 1, parts) if parts > 1 else 1
        if parts == 1:
            return scan(codes, queries, radius)
        # Created once: creation takes as long as a scan of 30,000 rows. Threads start on demand.
        self._pool = self._pool or ThreadPoolExecutor(thread_name_prefix="bit-scan")
        bounds = [len(codes) * part // parts for part in range(parts + 1)]
        # FAISS and numpy release the interpreter lock.
        scans = [
            self._pool.submit(scan, codes[start:end], queries, radius) for start, end in pairwise(bounds)
        ]
        found = [part_scan.result() for part_scan in scans]
        return [
            np.concatenate([start + rows for start, rows in zip(bounds, of_query, strict=False)])
            for of_query in zip(*found, strict=True)
        ]

    def _within_faiss(self, codes: Codes, queries: Codes, radius: int) -> list[Rows]:
        faiss = self._faiss
        # In this thread only: helper threads would wait for cores on which the networks' threads spin.
        faiss.omp_set_num_threads(1)
        result = faiss.RangeSearchResult(len(queries))
        pointers = [faiss.swig_ptr(array.view(np.uint8)) for array in (queries, codes)]
        # FAISS excludes the radius itself.
        faiss.hamming_range_search(
            *pointers, len(queries), len(codes), radius + 1, 8 * codes.shape[1], result
        )
        # The result owns these arrays and is freed with this call: copy them.
        limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).tolist()
        rows = faiss.rev_swig_ptr(result.labels, limits[-1])
        return [rows[start:end].copy() for start, end in pairwise(limits)]


def _within_numpy(codes: Codes, queries: Codes, radius: int) -> list[Rows]:
    found: list[list[Rows]] = [[] for _ in queries]
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = codes[start : start + _BLOCK_ROWS]
        for query, rows in zip(queries, found, strict=True):
            rows.append(np.flatnonzero(_distances(block, query) <= radius) + start)
    return [np.concatenate(rows) for rows in found]


def _distances(codes: Codes, query: Codes) -> NDArray[np.uint16]:
    distances, ones = np.zeros(len(codes), dtype=np.uint16), np.empty(len(codes), dtype=np.uint8)
    different = np.empty(len(codes), dtype=np.uint64)
    for word, of_query in zip(codes.T, query, strict=True):
        np.bitwise_xor(word, of_query, out=different)
        np.bitwise_count(different, out=ones)
        np.add(distances, ones, out=distances)
    return distances
