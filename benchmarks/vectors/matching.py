"""Measure gallery matching beside a bare numpy product, and loading from SQLite.

The faces resemble ArcFace's: two templates of one person have a cosine of 0.6 to 0.8, two persons 0 +-
0.05, look-alikes 0.55. A query shows a person at 0.5 to 0.95, a look-alike, or a stranger. Ours and bare
take turns, some queries each: threads of BLAS that spin after a product would slow down what follows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.stats import Latency, Row
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import Upsert, WireTemplate
from broker_bridge.vectors.bit_scan import Engine
from broker_bridge.vectors.index import DEFAULT_FLOOR, Nearest, VectorIndex
from device.enrollment.gallery_rows import GalleryRows
from device.store.cursor import SyncCursor
from device.store.db_manager import DatabaseManager
from device.vision.gallery import Gallery
from fleet.tracks.faces import draw_at_cosine, draw_unit_vectors

SPACE = EmbeddingSpace("face:bench-512", 512)
TEMPLATES = 5
BATCH = 8
ENGINES: tuple[Engine, ...] = ("faiss", "numpy")
_SAME = 1e-5
_TURN = 25

Vectors = NDArray[np.float32]
Answer = tuple[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class MatchingRow(Row):
    """A row whose answers to `asked` queries must equal the bare product's."""

    differences: int = 0
    asked: int = 0

    @property
    def holds(self) -> bool:
        return super().holds and not self.differences

    @property
    def must(self) -> str:
        return f"{super().must}, {self.differences} of {self.asked} answers differ".lstrip(", ")


def measure(folder: Path, progress: Progress, sizes: Sequence[int]) -> list[Row]:
    """Measure searches among one or two numbers of templates, the smaller first."""
    small, size = sizes[0], sizes[-1]
    random = np.random.default_rng(1)
    keys, matrix = make_people(size, random)
    task = progress.add_task("matching", total=2 * len(sizes))
    rows = _search(keys[:small], matrix[:small], random, batch=1, rounds=400, must=(1 / 3, None))
    rows += _search(keys[:small], matrix[:small], random, batch=BATCH, rounds=200, must=(1.0, None))
    progress.advance(task)
    if size > small:
        rows += _search(keys, matrix, random, batch=1, rounds=200, must=(None, 2.0))
        progress.advance(task)
        rows += _search(keys, matrix, random, batch=BATCH, rounds=50, must=(1.0, None))
        progress.advance(task)
    with _filled(folder / "matching.db", keys, matrix) as db:
        rows += _load(db, size)
    rows += _change(keys, matrix)
    progress.advance(task)
    return rows


def make_people(count: int, random: np.random.Generator) -> tuple[list[str], Vectors]:
    """Return keys and float32[count, 512]; every tenth row resembles the one before."""
    base = draw_unit_vectors((count // TEMPLATES, SPACE.dimension), random)
    base[9::10] = draw_at_cosine(base[8::10], 0.55, random)
    cosine = np.sqrt(random.uniform(0.6, 0.8, count))
    keys = [f"EMP-{row // TEMPLATES}" for row in range(count)]
    return keys, draw_at_cosine(np.repeat(base, TEMPLATES, axis=0), cosine, random)


def make_queries(matrix: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """Return queries float32[count, 512] in random order.

    Two thirds show an enrolled person, a sixth are look-alikes, a sixth strangers.
    """
    rows = matrix[random.integers(0, len(matrix), count)]
    queries = draw_at_cosine(rows, random.uniform(DEFAULT_FLOOR, 0.95, count), random)
    queries[0::6] = draw_at_cosine(rows[0::6], 0.55, random)
    queries[1::6] = draw_unit_vectors(queries[1::6].shape, random)
    return queries[random.permutation(count)]


def _search(
    keys: Sequence[str],
    matrix: Vectors,
    random: np.random.Generator,
    *,
    batch: int,
    rounds: int,
    must: tuple[float | None, float | None],
) -> list[Row]:
    """Measure searches of one engine beside the bare product.

    `must` limits the ratio of the medians for the default engine, and has the limit in ms for both.
    """
    batches = list(make_queries(matrix, rounds * batch, random).reshape(rounds, batch, -1))
    indexes = [VectorIndex.from_vectors(keys, matrix, engine) for engine in ENGINES]
    bare: list[float] = []
    took: list[list[float]] = [[] for _ in indexes]
    differences = [0 for _ in indexes]
    for start in range(0, rounds, _TURN):
        turn = batches[start : start + _TURN]
        products = _timed_all(lambda queries: _product(matrix, queries), turn, bare)
        expected = [_best_two(keys, row) for product in products for row in product]
        for number, index in enumerate(indexes):
            answers = [one for found in _timed_all(index.search, turn, took[number]) for one in found]
            differences[number] += sum(map(_differ, expected, answers))
    faces = "1 face" if batch == 1 else f"{batch} faces in one call"
    floor = Latency.from_seconds(bare)
    rows: list[Row] = [
        MatchingRow(
            f"match {faces} among {len(keys):,} ({engine})",
            Latency.from_seconds(seconds),
            bare=floor,
            p50_limit=must[1],
            at_most=must[0] if engine == ENGINES[0] else None,
            differences=different,
            asked=rounds * batch,
        )
        for engine, seconds, different in zip(ENGINES, took, differences, strict=True)
    ]
    return [*rows, Row("  bare numpy product and argmax", floor)]


def _timed_all(act: Callable[[Vectors], T], batches: Sequence[Vectors], took: list[float]) -> list[T]:
    results = []
    for queries in batches:
        seconds, result = _timed(partial(act, queries))
        took.append(seconds)
        results.append(result)
    return results


def _product(matrix: Vectors, queries: Vectors) -> Vectors:
    """Return float32[q, n], after computing the best of each for its time."""
    product: Vectors = queries @ matrix.T if len(queries) > 1 else (matrix @ queries[0])[np.newaxis]
    product.argmax(axis=1)
    return product


def _best_two(keys: Sequence[str], similarities: Vectors) -> tuple[Answer, float]:
    best = int(similarities.argmax())
    mine = best // TEMPLATES * TEMPLATES
    others = np.delete(similarities, slice(mine, mine + TEMPLATES))
    return (keys[best], float(similarities[best])), float(others.max())


def _differ(expected: tuple[Answer, float], answer: Nearest | None) -> bool:
    """Return whether person, similarity or runner-up differ.

    Below the floor only the fact that they are below counts.
    """
    (key, similarity), runner_up = expected
    if answer is None:
        return True
    if similarity < DEFAULT_FLOOR:
        return answer.similarity >= DEFAULT_FLOOR + _SAME
    second = max(runner_up, DEFAULT_FLOOR) - max(answer.runner_up, DEFAULT_FLOOR)
    return answer.key != key or abs(answer.similarity - similarity) > _SAME or abs(second) > _SAME


@contextmanager
def _filled(path: Path, keys: Sequence[str], matrix: Vectors) -> Iterator[DatabaseManager]:
    db = DatabaseManager(path)
    db.initialize()
    step = 1000 * TEMPLATES
    for start in range(0, len(keys), step):
        people = [_upsert(keys, matrix, row) for row in range(start, min(start + step, len(keys)), TEMPLATES)]
        db.apply_delta(people, [], SyncCursor("bench", (SPACE.id,), "e", start + 1))
    yield db
    db.close()


def _upsert(keys: Sequence[str], matrix: Vectors, row: int) -> Upsert:
    templates = [
        WireTemplate(template_id=f"t{number}", space=SPACE.id, vector=matrix[row + number].tobytes())
        for number in range(TEMPLATES)
    ]
    return Upsert(user_id=keys[row], version=1, templates=templates)


def _load(db: DatabaseManager, size: int, rounds: int = 7) -> list[Row]:
    """Measure loading a gallery beside reading the same rows."""

    def read() -> None:
        with db.connection.reading() as connection:
            for _ in connection.execute(
                "SELECT user_id, embedding FROM gallery_templates WHERE space = ?", (SPACE.id,)
            ):
                pass

    def load() -> int:
        rows = GalleryRows.from_stored(SPACE.id, SPACE.dimension, *db.load_gallery(SPACE.id), 1)
        return len(Gallery(SPACE, rows.user_ids, rows.vectors, version=1))

    bare, took = [], []
    for _ in range(rounds):
        bare.append(_timed(read)[0])
        seconds, count = _timed(load)
        if count != size:
            raise RuntimeError(f"the gallery has {count} templates instead of {size}")
        took.append(seconds)
    floor = Latency.from_seconds(bare)
    return [
        Row(f"load {size:,} templates from SQLite", Latency.from_seconds(took), bare=floor, at_most=2.0),
        Row("  bare reading of the same rows", floor),
    ]


def _change(keys: Sequence[str], matrix: Vectors, rounds: int = 15) -> list[Row]:
    """Measure one changed and one removed identity, up to a gallery that answers."""
    rows = GalleryRows(SPACE.id, SPACE.dimension, keys, matrix, 1)
    took = []
    for version in range(2, rounds + 2):
        upsert, gone = _upsert(keys, matrix, version * TEMPLATES), keys[-version * TEMPLATES]

        def change(upsert: Upsert = upsert, gone: str = gone, version: int = version) -> Gallery:
            changed = rows.with_changes([upsert], [gone], version)
            return Gallery(SPACE, changed.user_ids, changed.vectors, version=version)

        took.append(_timed(change)[0])
    return [
        Row(f"change two people of a gallery of {len(keys):,}", Latency.from_seconds(took), p50_limit=500.0)
    ]


def _timed(act: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result
