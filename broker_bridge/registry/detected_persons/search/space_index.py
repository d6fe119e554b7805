"""Keep the centroids of one space in memory, and search them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.tracker_store import TrackerStore
from broker_bridge.registry.mongo.threads import run_in_thread
from broker_bridge.vectors.index import VectorIndex

from .centroids import CentroidBlock, IndexedCentroid, LocalWrite
from .engine import FaceCandidate
from .ranking import rank_by_mean_cosine

# Writes per turn of the event loop: one takes some 30 us at 100,000 persons.
_WRITES_PER_TURN = 32
# A search of so many rows, a millisecond at most, runs on the event loop: a thread costs 0.1 ms.
_MAX_ROWS_ON_LOOP = 150_000
# The fixed cost of a search, as rows.
_ROWS_PER_SEARCH = 10_000


class IndexState(Enum):
    """The life of a space index: empty, loading, live; stale until it is loaded again."""

    EMPTY = "empty"
    """Writes are not queued, since loading will read them."""
    LOADING = "loading"
    """MongoDB is being read; writes are queued."""
    LIVE = "live"
    """The index has all writes but the queued ones."""
    STALE = "stale"
    """Changes were missed: the next use reads everything again."""


class SpaceIndex:
    """The centroids of one space, loaded at the first use.

    Load, write and search exclude each other.

    Local and remote writes wait in one queue, the last one per person, and are applied before the next
    search. A local write counts until MongoDB reports that person; `check_local_writes` reads the persons
    that MongoDB never reports.
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
        self._state = IndexState.EMPTY
        self._index: VectorIndex | None = None
        self._norms: dict[str, float] = {}
        self._pending: dict[int, IndexedCentroid | None] = {}
        self._unconfirmed: dict[int, LocalWrite] = {}
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._norms)

    async def candidates(
        self, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        """Return the candidates as FaceSearch.candidates does; exact.

        Raises RegistryError.
        """
        async with self._lock:
            index = await self._bring_up_to_date()
            if len(vectors) * (_ROWS_PER_SEARCH + len(index)) <= _MAX_ROWS_ON_LOOP:
                return self._search(index, vectors, limit, floor)
            return await run_in_thread(self._search, index, vectors, limit, floor)

    async def load(self) -> None:
        """Load the space unless it is loaded, and apply the queued writes.

        Raises RegistryError.
        """
        async with self._lock:
            await self._bring_up_to_date()

    async def keep_up(self) -> None:
        """Apply the queued writes or load a stale index again; leave an empty one empty."""
        is_due = self._state is IndexState.STALE or (self._state is IndexState.LIVE and self._pending)
        if is_due:
            await self.load()

    def apply_local(self, global_id: int, centroid: IndexedCentroid | None, now: float) -> None:
        """Queue a write of this program, which MongoDB has not reported yet; None deletes."""
        self._unconfirmed[global_id] = LocalWrite(centroid, now)
        self._enqueue(global_id, centroid)

    def apply_remote(self, global_id: int, centroid: IndexedCentroid | None) -> None:
        """Queue what MongoDB reports of a person; None if it is deleted."""
        local = self._unconfirmed.pop(global_id, None)
        if local is None or not local.is_confirmed_by(centroid):
            self._enqueue(global_id, centroid)

    def invalidate(self) -> None:
        """Mark the index as stale: changes were missed."""
        if self._state is not IndexState.EMPTY:
            self._state = IndexState.STALE

    async def check_local_writes(self, before: float) -> None:
        """Read the persons with an unconfirmed local write from before `before`.

        Raises RegistryError.
        """
        old = {
            global_id: write for global_id, write in self._unconfirmed.items() if write.written_at < before
        }
        stored = await self._store.centroids_of(old) if old else {}
        for global_id, write in old.items():
            # A newer write, or its confirmation, may have come during the read.
            if self._unconfirmed.get(global_id) is write:
                here = [one for one in stored.get(global_id, ()) if one.space == self._space.id]
                self.apply_remote(global_id, IndexedCentroid.of(here[0]) if here else None)

    def _enqueue(self, global_id: int, centroid: IndexedCentroid | None) -> None:
        if self._state is not IndexState.EMPTY:
            self._pending[global_id] = centroid

    async def _bring_up_to_date(self) -> VectorIndex:
        index = self._index
        if index is None or self._state is not IndexState.LIVE:
            index = await self._load()
        await self._apply_pending(index)
        return index

    async def _load(self) -> VectorIndex:
        self._clear()
        await self._before_loading()
        # The read that follows has all writes up to here; those that come during it are queued.
        self._state = IndexState.LOADING
        try:
            self._index = index = await self._read()
        except BaseException:
            self._clear()
            raise
        if self._state is IndexState.LOADING:
            self._state = IndexState.LIVE
        self._pending.update((global_id, write.centroid) for global_id, write in self._unconfirmed.items())
        self._counters["loads"] += 1
        return index

    def _clear(self) -> None:
        # Also before a load: the old and the new index together would take twice the memory.
        self._state = IndexState.EMPTY
        self._index = None
        self._norms = {}
        self._pending.clear()

    async def _read(self) -> VectorIndex:
        # In a thread: the first index imports FAISS, which takes a good part of a second.
        index = await run_in_thread(VectorIndex, self._space.dimension)
        block = CentroidBlock(self._space.dimension)
        async for global_id, unit, centroid_norm in self._store.stream_centroids(self._space.id):
            self._counters["unusable"] += not block.add(global_id, IndexedCentroid(unit, centroid_norm))
            if block.is_full:
                index = await run_in_thread(self._add, index, block)
                block = CentroidBlock(self._space.dimension)
        return await run_in_thread(self._add, index, block)

    def _add(self, index: VectorIndex, block: CentroidBlock) -> VectorIndex:
        self._norms.update(block.norms)
        if not len(index):
            return VectorIndex.from_vectors(list(block.norms), block.units)
        for row, global_id in enumerate(block.norms):
            index.put(global_id, block.units[row : row + 1])
        return index

    async def _apply_pending(self, index: VectorIndex) -> None:
        while self._pending:
            for _ in range(min(len(self._pending), _WRITES_PER_TURN)):
                global_id, centroid = self._pending.popitem()
                key = str(global_id)
                if centroid is not None and centroid.is_usable(self._space.dimension):
                    index.put(key, centroid.unit[np.newaxis])
                    self._norms[key] = centroid.centroid_norm
                else:
                    index.remove(key)
                    self._norms.pop(key, None)
            if self._pending:
                await asyncio.sleep(0)

    def _search(
        self, index: VectorIndex, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        return [rank_by_mean_cosine(index, self._norms, vector, limit, floor) for vector in vectors]
