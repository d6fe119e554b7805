"""Find the sign codes within a Hamming distance, with FAISS or numpy."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .sign_bits import Codes

Rows = NDArray[np.intp]
Engine = Literal["faiss", "numpy"]
Layout = Literal["C", "F"]

# numpy's passes over this many rows stay in the processor's cache.
_BLOCK_ROWS = 32_768
# From this many rows on a thread saves more than its start takes.
_THREAD_ROWS = 250_000


class FoundRows(NamedTuple):
    """Rows, ascending, and the number of bits in which each differs."""

    rows: Rows
    distances: NDArray[np.float32]


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

    def find_within(self, codes: Codes, query: Codes, radius: int) -> FoundRows:
        """Return the rows of `codes` within `radius` of the code `query`."""
        scan = self._within_faiss if self._faiss else _within_numpy
        parts = len(codes) // _THREAD_ROWS
        # `os.cpu_count` reads a file.
        parts = min(os.cpu_count() or 1, parts) if parts > 1 else 1
        if parts == 1:
            return scan(codes, query, radius)
        # Created once: creation takes as long as a scan of 30,000 rows. Threads start on demand.
        self._pool = self._pool or ThreadPoolExecutor(thread_name_prefix="bit-scan")
        bounds = [len(codes) * part // parts for part in range(parts + 1)]
        # FAISS and numpy release the interpreter lock.
        scans = [self._pool.submit(scan, codes[start:end], query, radius) for start, end in pairwise(bounds)]
        return _join([part_scan.result() for part_scan in scans], bounds)

    def _within_faiss(self, codes: Codes, query: Codes, radius: int) -> FoundRows:
        faiss = self._faiss
        # In this thread only: helper threads would wait for cores on which the networks' threads spin.
        faiss.omp_set_num_threads(1)
        result = faiss.RangeSearchResult(1)
        pointers = [faiss.swig_ptr(array.view(np.uint8)) for array in (query, codes)]
        # FAISS excludes the radius itself.
        faiss.hamming_range_search(*pointers, 1, len(codes), radius + 1, 8 * codes.shape[1], result)
        # The result owns these arrays and is freed with this call: copy them.
        (count,) = faiss.rev_swig_ptr(result.lims, 2)[1:].tolist()
        return FoundRows(
            faiss.rev_swig_ptr(result.labels, count).copy(),
            faiss.rev_swig_ptr(result.distances, count).copy(),
        )


def _within_numpy(codes: Codes, query: Codes, radius: int) -> FoundRows:
    bounds = range(0, len(codes), _BLOCK_ROWS)
    found = []
    for start in bounds:
        distances = _distances(codes[start : start + _BLOCK_ROWS], query)
        rows = np.flatnonzero(distances <= radius)
        found.append(FoundRows(rows, distances[rows].astype(np.float32)))
    return _join(found, bounds)


def _join(parts: Sequence[FoundRows], starts: Sequence[int]) -> FoundRows:
    rows = [start + part.rows for start, part in zip(starts, parts, strict=False)]
    return FoundRows(np.concatenate(rows), np.concatenate([part.distances for part in parts]))


def _distances(codes: Codes, query: Codes) -> NDArray[np.uint16]:
    distances, ones = np.zeros(len(codes), dtype=np.uint16), np.empty(len(codes), dtype=np.uint8)
    different = np.empty(len(codes), dtype=np.uint64)
    for word, of_query in zip(codes.T, query, strict=True):
        np.bitwise_xor(word, of_query, out=different)
        np.bitwise_count(different, out=ones)
        np.add(distances, ones, out=distances)
    return distances
