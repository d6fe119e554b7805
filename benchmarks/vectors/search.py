"""Measure the vector index beside exact numpy and PostgreSQL with pgvector.

Each person has one vector; two persons have a cosine of 0 +- 0.05, and every tenth is a look-alike at
0.55 of the one before. Queries show persons at 0.5 and at 0.6 to 0.8. Of two look-alikes the right one
must be found. A stranger has no match. The spaces of real networks follow (`real_spaces`).
"""

import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import psutil
from rich.progress import Progress

from benchmarks.stats import Latency, Note, Row
from broker_bridge.vectors.index import DEFAULT_FLOOR, VectorIndex
from fleet.tracks.faces import draw_at_cosine

from . import pgvector, real_spaces
from .queries import Queries, Vectors
from .recall import SearchRow, measure_recall

T = TypeVar("T")

SIZES = {10_000: 1 / 5, 100_000: 1 / 20, 1_000_000: 1 / 20}
"""The numbers of persons, and at most what share of exact numpy's median a search may take."""
PERSONS, MEGABYTES = 100_000, 260
_DIMENSION = 512
_ASKED = 1000
_TURN = 25
_BUILDS = 5


@dataclass(frozen=True)
class MemoryRow(Row):
    """A row that must also keep to a number of megabytes.

    `peak` is the most meanwhile.
    """

    megabytes: float = 0.0
    peak: float = 0.0

    @property
    def holds(self) -> bool:
        return max(self.megabytes, self.peak) < MEGABYTES

    @property
    def must(self) -> str:
        found = f"{self.megabytes:.0f} MB, {self.peak:.0f} meanwhile"
        return f"{found}, < {MEGABYTES} MB  {'holds' if self.holds else 'MISSED'}"


def measure(progress: Progress, sizes: Sequence[int]) -> list[Row | Note]:
    """Measure searches among each number of persons, memory, real spaces, pgvector.

    The numbers ascend.
    """
    random = np.random.default_rng(1)
    task = progress.add_task("search", total=len(sizes) + 3)
    rows: list[Row | Note] = [_memory(min(PERSONS, sizes[-1]))]
    progress.advance(task)
    matrix = make_persons(sizes[-1], random)
    kinds: dict[int, dict[str, Queries]] = {}
    bare: dict[int, Latency] = {}
    for size in sizes:
        kinds[size] = make_queries(matrix[:size], random)
        found = _search(matrix[:size], kinds[size], random)
        rows += found
        bare[size] = found[-1].latency
        progress.advance(task)
    rows += real_spaces.measure([size for size in sizes if size <= PERSONS])
    progress.advance(task)
    rows += pgvector.measure(
        {size: (matrix[:size], _mixed(kinds[size], 150, random), bare[size]) for size in sizes[:2]}
    )
    progress.advance(task)
    return rows


def make_persons(count: int, random: np.random.Generator) -> Vectors:
    """float32[count, 512], unit length."""
    matrix = random.standard_normal((count, _DIMENSION), dtype=np.float32)
    matrix /= np.sqrt(np.vecdot(matrix, matrix))[:, np.newaxis]
    matrix[9::10] = draw_at_cosine(matrix[8::10], 0.55, random)
    return matrix


def make_queries(matrix: Vectors, random: np.random.Generator) -> dict[str, Queries]:
    """Draw a thousand queries of each kind."""
    anybody = random.integers(0, len(matrix), (2, _ASKED))
    pairs = random.integers(0, len(matrix) // 10, _ASKED) * 10 + random.integers(8, 10, _ASKED)
    strangers = random.standard_normal((_ASKED, _DIMENSION), dtype=np.float32)
    return {
        "0.5": Queries(draw_at_cosine(matrix[anybody[0]], 0.5, random), anybody[0]),
        "0.6-0.8": Queries(
            draw_at_cosine(matrix[anybody[1]], random.uniform(0.6, 0.8, _ASKED), random), anybody[1]
        ),
        "look-alikes": Queries(
            draw_at_cosine(matrix[pairs], random.uniform(0.5, 0.8, _ASKED), random), pairs
        ),
        "strangers": Queries(strangers, np.full(_ASKED, -1)),
    }


def _mixed(kinds: dict[str, Queries], count: int, random: np.random.Generator) -> Queries:
    """Return so many of the known persons' rows, in random order."""
    known = [queries for kind, queries in kinds.items() if kind != "strangers"]
    together = Queries(
        np.concatenate([one.vectors for one in known]), np.concatenate([one.rows for one in known])
    )
    return together.only(random.permutation(len(together.rows))[:count])


def _search(matrix: Vectors, kinds: dict[str, Queries], random: np.random.Generator) -> list[Row]:
    size = len(matrix)
    keys = [str(row) for row in range(size)]
    rounds = 50 if size > PERSONS else 400
    queries = _mixed(kinds, rounds, random)
    built = []
    for _ in range(_BUILDS):
        seconds, faiss = _timed(lambda: VectorIndex.from_vectors(keys, matrix, "faiss"))
        built.append(seconds)
    indexes = {"faiss": faiss, "numpy": VectorIndex.from_vectors(keys, matrix, "numpy")}
    rows = [Row(f"build an index of {size:,}", Latency.from_seconds(built))]
    if size <= PERSONS:
        indexes["faiss, filled one by one"] = grown = VectorIndex(_DIMENSION, "faiss")
        rows += _change(grown, keys, matrix)
    took: dict[str, list[float]] = {name: [] for name in indexes}
    bare: list[float] = []
    # Turns of some queries: threads of BLAS that spin after a product would slow down what comes next.
    for start in range(0, rounds, _TURN):
        turn = queries.vectors[start : start + _TURN]
        bare += [_timed(lambda query=query: int((matrix @ query).argmax()))[0] for query in turn]
        for name, index in indexes.items():
            took[name] += _turn(index, turn)
    exact = Latency.from_seconds(bare)
    for name, index in indexes.items():
        limit = SIZES.get(size) if name.startswith("faiss") else None
        recalls = tuple((kind, measure_recall(index, one, DEFAULT_FLOOR)) for kind, one in kinds.items())
        rows.append(
            SearchRow(
                f"search {size:,} ({name})",
                Latency.from_seconds(took[name]),
                bare=exact,
                at_most=limit,
                recalls=recalls,
            )
        )
    return [*rows, Row(f"  exact numpy among {size:,}", exact)]


def _turn(index: VectorIndex, turn: Vectors) -> list[float]:
    return [_timed(lambda query=query: index.search(query[np.newaxis]))[0] for query in turn]


def _change(index: VectorIndex, keys: Sequence[str], matrix: Vectors, count: int = 1000) -> list[Row]:
    """Put every person one by one; then change some, remove some and put them back."""
    put = [_timed(lambda row=row: index.put(keys[row], matrix[row : row + 1]))[0] for row in range(len(keys))]
    some = range(0, len(keys), len(keys) // count)
    changed = [_timed(lambda row=row: index.put(keys[row], matrix[row : row + 1]))[0] for row in some]
    removed = []
    for row in some:
        removed.append(_timed(lambda row=row: index.remove(keys[row]))[0])
        index.put(keys[row], matrix[row : row + 1])
    return [
        Row(f"{act} of {len(keys):,}, {1e6 * float(np.median(took)):.0f} us each", Latency.from_seconds(took))
        for act, took in (("add one", put), ("change one", changed), ("remove one", removed))
    ]


def _memory(count: int) -> Row:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        megabytes, peak, seconds = fresh.submit(_fill, count).result()
    return MemoryRow(
        f"an index of {count:,}, filled one by one",
        Latency.from_seconds([seconds]),
        megabytes=megabytes,
        peak=peak,
    )


def _fill(count: int) -> tuple[float, float, float]:
    """By how many megabytes this process has grown, and at the most.

    And in how many seconds.
    """
    random = np.random.default_rng(1)
    warm = VectorIndex(_DIMENSION)
    _put_all(warm, make_persons(2000, random), 0)
    warm.search(random.standard_normal((1, _DIMENSION), dtype=np.float32))
    del warm
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    index = VectorIndex(_DIMENSION)
    for start in range(0, count, 1000):
        _put_all(index, make_persons(1000, random), start)
    grown = psutil.Process().memory_info().rss - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return grown / 1e6, peak / 1e6, time.perf_counter() - began


def _put_all(index: VectorIndex, matrix: Vectors, first: int) -> None:
    for row, vector in enumerate(matrix):
        index.put(str(first + row), vector[np.newaxis])


def _timed(act: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result
