"""Measure the vector index in spaces as uneven as those of real networks.

The rows of a spread are normal with variances that fall by a power of their number, in a random basis, around
a common part; a picture of a person is turned towards noise of the same covariance. Power, common part and
cosines are fitted to what the networks give for photographs of people: the mean and the deviation of the
cosines of two persons, the largest of some thousand, and the range and mean of those of one person.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.stats import Latency, Row
from broker_bridge.vectors.bit_scan import Rows
from broker_bridge.vectors.index import VectorIndex
from fleet.tracks.faces import to_cosine, to_unit_rows

from .queries import Queries, Vectors
from .recall import SearchRow, measure_recall

Recalls = tuple[tuple[str, float], ...]

_DIMENSION = 512
_ASKED = 200
_TURN = 25


@dataclass(frozen=True)
class Spread:
    """The templates in the space of a network, and the floors its limits give.

    Cosines of one person are beta(`own`) in `own_range`; those of two have the mean `impostor_mean`.
    """

    name: str
    floors: tuple[float, ...]
    rank: int
    power: float
    impostor_mean: float
    own_range: tuple[float, float]
    own: tuple[float, float]


SPREADS = (
    # One person 0.45 to 0.98, mean 0.74; two 0.14 +- 0.14, at most 0.55 of 1,000. It has 128 dimensions.
    Spread("resnet29-like", (0.6, 0.45), 128, 0.8, 0.14, (0.45, 0.98), (2.5, 2.1)),
    # One person 0.4 to 1, mean 0.68; two 0.05 +- 0.09, at most 0.5.
    Spread("mobilefacenet-like", (0.55, 0.4), 512, 0.75, 0.05, (0.4, 1.0), (2.8, 3.2)),
)


class CountingIndex(VectorIndex):
    """Counts the rows that it compares."""

    compared = 0

    def _similarities(self, unit: Vectors, rows: Rows | None) -> Vectors:
        self.compared += len(self) if rows is None else len(rows)
        return super()._similarities(unit, rows)


class SpreadFaces:
    """Draws templates and pictures of one spread."""

    def __init__(self, spread: Spread, random: np.random.Generator) -> None:
        self._spread, self._random = spread, random
        variances = np.arange(1, spread.rank + 1, dtype=np.float64) ** -spread.power
        variances *= (1 - spread.impostor_mean) / variances.sum()
        basis = np.linalg.qr(random.standard_normal((_DIMENSION, spread.rank)))[0].T
        self._mixing = (np.sqrt(variances)[:, np.newaxis] * basis).astype(np.float32)
        common = random.standard_normal((1, spread.rank)) @ basis
        self._common = to_unit_rows(common) * np.float32(np.sqrt(spread.impostor_mean))

    def _noise(self, count: int) -> Vectors:
        normal = self._random.standard_normal((count, self._spread.rank), dtype=np.float32)
        return normal @ self._mixing

    def draw_persons(self, count: int) -> Vectors:
        return to_unit_rows(self._noise(count) + self._common)

    def draw_pictures(self, persons: Vectors) -> Vectors:
        least, most = self._spread.own_range
        cosines = least + (most - least) * self._random.beta(*self._spread.own, len(persons))
        return to_cosine(persons, cosines, self._noise(len(persons)))


def measure(sizes: Sequence[int]) -> list[Row]:
    """Measure searches in each spread at each floor; a fifth are strangers'."""
    rows: list[Row] = []
    for spread in SPREADS:
        random = np.random.default_rng(1)
        faces = SpreadFaces(spread, random)
        matrix = faces.draw_persons(sizes[-1])
        for size in sizes:
            shown = matrix[random.integers(0, size, _ASKED)]
            queries = faces.draw_pictures(shown)
            queries[::5] = faces.draw_persons(_ASKED // 5)
            rows += _search(spread, matrix[:size], queries)
    return rows


def _search(spread: Spread, matrix: Vectors, queries: Vectors) -> list[Row]:
    index = CountingIndex.from_vectors([str(row) for row in range(len(matrix))], matrix)
    bare: list[float] = []
    took: dict[float, list[float]] = {floor: [] for floor in spread.floors}
    nearest: list[int] = []
    for start in range(0, len(queries), _TURN):
        turn = queries[start : start + _TURN]
        bare += _timed_each(lambda query: nearest.append(int((matrix @ query).argmax())), turn)
        for floor in spread.floors:
            took[floor] += _timed_each(partial(_search_one, index, floor), turn)
    exact = Latency.from_seconds(bare)
    best = np.array(nearest)
    cosines = np.vecdot(matrix[best], queries)
    rows: list[Row] = []
    for floor, seconds in took.items():
        recalls, share = _compare(index, Queries(queries, np.where(cosines >= floor, best, -1)), floor)
        name = f"search {len(index):,}, {spread.name} at {floor}, {share:.1%} compared"
        rows.append(SearchRow(name, Latency.from_seconds(seconds), bare=exact, recalls=recalls))
    return [*rows, Row(f"  exact numpy among {len(matrix):,}", exact)]


def _compare(index: CountingIndex, queries: Queries, floor: float) -> tuple[Recalls, float]:
    """Return recall@1 per kind of query, and the share of the rows that were compared."""
    index.compared = 0
    is_known = queries.rows >= 0
    recalls = tuple(
        (kind, measure_recall(index, queries.only(np.flatnonzero(chosen)), floor))
        for kind, chosen in (("known", is_known), ("strangers", ~is_known))
        if chosen.any()
    )
    return recalls, index.compared / len(index) / len(queries.rows)


def _search_one(index: VectorIndex, floor: float, query: Vectors) -> None:
    index.search(query[np.newaxis], floor)


def _timed_each(act: Callable[[Vectors], None], queries: Vectors) -> list[float]:
    took = []
    for query in queries:
        began = time.perf_counter()
        act(query)
        took.append(time.perf_counter() - began)
    return took
