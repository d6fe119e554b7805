"""Everybody known by a face in one space, in memory: one vector per person, and how far to trust it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.tracker_store import TrackerStore
from broker_bridge.registry.mongo.threads import run_in_thread
from broker_bridge.vectors.index import EXACT_ROWS, VectorIndex, are_units

from .engine import FaceCandidate

T = TypeVar("T")

# People who go into the index together: enough to show it how it has to take signs.
_BLOCK = EXACT_ROWS + 280
# Changes that the event loop may be kept busy with: a change takes some 30 us at 100,000 people.
_CHANGES_AT_ONCE = 32
# Searched on the event loop: rows looked at, which takes a millisecond at most. A thread costs 0.1 ms.
_ROWS_AT_ONCE = 150_000
# What a search costs besides going through the rows, as rows.
_ROWS_OF_A_QUESTION = 10_000
# Several times as many as are wanted are asked for, since the order by cosine is not that by mean cosine.
_SPARE = 4


class IndexedCentroid(NamedTuple):
    """How somebody is known: `unit` is float32[d] of unit length, `consistency` 0..1 (see KnownFace)."""

    unit: Vector
    centroid_norm: float

    @classmethod
    def of(cls, face: FaceCentroid) -> "IndexedCentroid":
        return cls(face.unit, face.centroid_norm)

    def is_usable(self, dimension: int) -> bool:
        """Whether it is a face of a space of `dimension`: somebody may have spoilt a document."""
        return self.unit.shape == (dimension,) and bool(are_units(self.unit[np.newaxis])[0])


class LocalWrite(NamedTuple):
    """What this program says of somebody (None: there is nobody), and when it said so."""

    known: IndexedCentroid | None
    at: float

    def is_confirmed_by(self, told: IndexedCentroid | None) -> bool:
        if self.known is None or told is None:
            return self.known is told
        same = np.array_equal(self.known.unit, told.unit)
        return same and self.known.centroid_norm == told.centroid_norm


class _Block:
    """People on their way into an index, without an object for each vector: those leave holes in memory."""

    def __init__(self, dimension: int) -> None:
        self.people: dict[str, float] = {}
        self.units = np.empty((_BLOCK, dimension), dtype=np.float32)

    def add(self, global_id: int, known: IndexedCentroid) -> bool:
        """Whether the face could be taken."""
        if not known.is_usable(self.units.shape[1]):
            return False
        # Whoever was deleted and written again meanwhile comes twice: the change stream tells how it ended.
        if str(global_id) not in self.people:
            self.units[len(self.people)] = known.unit
            self.people[str(global_id)] = known.centroid_norm
        return True


class SpaceIndex:
    """Loaded when first asked. Loading, changing and searching happen one at a time.

    What is said of a person takes effect before the next search. What this program says itself, a claim, is
    as good as read until MongoDB tells of that person; a claim that it never tells of is asked about.
    """

    def __init__(
        self,
        store: TrackerStore,
        space: EmbeddingSpace,
        before_loading: Callable[[], Awaitable[None]],
        counters: Counter[str],
    ) -> None:
        self._store = store
        self._space = space
        self._before_loading = before_loading
        self._counters = counters
        self._index: VectorIndex | None = None
        self._consistency: dict[str, float] = {}
        self._news: dict[int, IndexedCentroid | None] = {}
        self._claims: dict[int, LocalWrite] = {}
        self._hears = False
        self._stale = False
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._consistency)

    async def candidates(
        self, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        """As FaceSearch.candidates; exact."""
        async with self._lock:
            index = await self._current()
            await self._take_news(index)
            if len(vectors) * (_ROWS_OF_A_QUESTION + len(index)) <= _ROWS_AT_ONCE:
                return self._search(index, vectors, limit, floor)
            return await run_in_thread(self._search, index, vectors, limit, floor)

    async def load(self) -> None:
        """Load unless that is done, and take in what was said since."""
        async with self._lock:
            await self._take_news(await self._current())

    async def keep_up(self) -> None:
        """Take in what was said, if anybody has ever asked; and load anew what has lost track."""
        if self._index is not None and (self._news or self._stale):
            await self.load()

    def claim(self, global_id: int, known: IndexedCentroid | None, now: float) -> None:
        """This program knows better than MongoDB has told so far."""
        self._claims[global_id] = LocalWrite(known, now)
        if self._hears:
            self._news[global_id] = known

    def hear(self, global_id: int, known: IndexedCentroid | None) -> None:
        """MongoDB tells how somebody is known, or that they are gone."""
        claim = self._claims.pop(global_id, None)
        if self._hears and not (claim and claim.is_confirmed_by(known)):
            self._news[global_id] = known

    def lose_track(self) -> None:
        """Changes were missed: everything is to be read again."""
        self._stale = True

    async def check_claims(self, before: float) -> None:
        """Ask MongoDB about claims from before `before`: what was never written is not true."""
        old = {global_id: claim for global_id, claim in self._claims.items() if claim.at < before}
        faces = await self._store.centroids_of(old) if old else {}
        for global_id, claim in old.items():
            # Unless somebody has said something newer meanwhile.
            if self._claims.get(global_id) is claim:
                here = [face for face in faces.get(global_id, ()) if face.space == self._space.id]
                self.hear(global_id, IndexedCentroid.of(here[0]) if here else None)

    async def _current(self) -> VectorIndex:
        if self._index is None or self._stale:
            # Gone before the new one comes: both would be twice the memory.
            self._index, self._consistency, self._hears = None, {}, False
            await self._before_loading()
            # All that was heard so far is in what will be read; what is heard meanwhile may not be.
            self._news.clear()
            self._stale, self._hears = False, True
            try:
                self._index = await self._read()
            finally:
                self._hears = self._index is not None
            self._news.update((global_id, claim.known) for global_id, claim in self._claims.items())
            self._counters["loads"] += 1
        return self._index

    async def _read(self) -> VectorIndex:
        # The first one imports FAISS, which takes a good part of a second.
        index = await run_in_thread(VectorIndex, self._space.dimension)
        block = _Block(self._space.dimension)
        async for global_id, unit, centroid_norm in self._store.stream_centroids(self._space.id):
            self._counters["unusable"] += not block.add(global_id, IndexedCentroid(unit, centroid_norm))
            if len(block.people) == _BLOCK:
                index = await run_in_thread(self._add, index, block)
                block = _Block(self._space.dimension)
        return await run_in_thread(self._add, index, block)

    def _add(self, index: VectorIndex, block: "_Block") -> VectorIndex:
        self._consistency.update(block.people)
        if not len(index):
            return VectorIndex.of(list(block.people), block.units[: len(block.people)])
        for row, global_id in enumerate(block.people):
            index.put(global_id, block.units[row : row + 1])
        return index

    async def _take_news(self, index: VectorIndex) -> None:
        while self._news:
            for _ in range(min(len(self._news), _CHANGES_AT_ONCE)):
                global_id, known = self._news.popitem()
                key = str(global_id)
                if known is not None and known.is_usable(self._space.dimension):
                    index.put(key, known.unit[np.newaxis])
                    self._consistency[key] = known.centroid_norm
                else:
                    index.remove(key)
                    self._consistency.pop(key, None)
            if self._news:
                await asyncio.sleep(0)

    def _search(
        self, index: VectorIndex, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        return [most_alike(index, self._consistency, vector, limit, floor) for vector in vectors]


def most_alike(
    index: VectorIndex, centroid_norm: Mapping[str, float], vector: Vector, limit: int, floor: float
) -> list[FaceCandidate]:
    """Up to `limit` people of `index` with a mean cosine of `floor` or more to `vector`; exact.

    Keys, of `consistency` too, are global ids as text.
    """
    asked = _SPARE * limit
    while True:
        ranked = index.rank(vector, asked, floor)
        best = most_similar(
            FaceCandidate(int(one.key), one.similarity * centroid_norm[one.key]) for one in ranked
        )
        best = [one for one in best[:limit] if one.similarity >= floor]
        # Nobody who was left out has a larger cosine than the last one, nor so a larger mean cosine.
        if len(ranked) < asked or (len(best) == limit and best[-1].similarity >= ranked[-1].similarity):
            return best
        asked *= _SPARE


def most_similar(candidates: Iterable[FaceCandidate]) -> list[FaceCandidate]:
    """The most similar first."""
    return sorted(candidates, key=lambda one: one.similarity, reverse=True)
