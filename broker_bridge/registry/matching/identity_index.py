"""Search the nearest identity to a vector.

Each space has one index, kept current by registry version.
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace, to_array
from broker_bridge.registry.identities.model import IdentityDelta
from broker_bridge.registry.mongo.threads import run_in_thread
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.sync.changes import DeltaQueries
from broker_bridge.vectors.index import Nearest, VectorIndex

# The driver decodes a page on the event loop: 200 identities take about 40 ms.
_PAGE = 200
# Vectors times templates that are searched on the event loop in about 0.2 ms; a thread costs 0.1 ms.
_SEARCHED_ON_LOOP = 20_000


class IdentityIndex:
    """The templates of all live identities in one space, loaded at the first search.

    Loading and longer searches run in a thread, one at a time.
    """

    def __init__(self, changes: DeltaQueries, space: EmbeddingSpace) -> None:
        self._changes = changes
        self._space = space
        self._index = VectorIndex(space.dimension)
        self._epoch: str | None = None
        self._version = 0
        self._lock = asyncio.Lock()

    async def find_nearest(self, vector: bytes, floor: float) -> tuple[History, Nearest | None]:
        """Return the nearest identity to `vector`; see find_all."""
        history, (found,) = await self.find_all([vector], floor)
        return history, found

    async def find_all(self, vectors: Sequence[bytes], floor: float) -> tuple[History, list[Nearest | None]]:
        """Return the nearest identity for each of `vectors`.

        The vectors are float32[d] of unit length.

        None stands where no identity has a cosine similarity of `floor` or more. The history is the state
        of the registry that was searched. Raises RegistryError.
        """
        async with self._lock:
            history = await self._catch_up()
            return history, await self._search(vectors, floor)

    async def find_all_loaded(self, vectors: Sequence[bytes], floor: float) -> list[Nearest | None]:
        """Return the same as find_all without reading the registry first.

        For a caller that follows the registry's changes itself.
        """
        async with self._lock:
            return await self._search(vectors, floor)

    async def _search(self, vectors: Sequence[bytes], floor: float) -> list[Nearest | None]:
        queries = np.stack([to_array(vector) for vector in vectors])
        if len(self._index) * len(queries) <= _SEARCHED_ON_LOOP:
            nearest = self._index.search(queries, floor)
        else:
            nearest = await run_in_thread(self._index.search, queries, floor)
        # The index is exact from the floor up only; below it, the nearest is arbitrary.
        return [found if found is not None and found.similarity >= floor else None for found in nearest]

    async def _catch_up(self) -> History:
        started_at = self._version
        while True:
            history, deltas = await self._changes.deltas_after(self._version, _PAGE, [self._space.id])
            # Tombstones below the horizon are purged, so deletions may be missed.
            missed_deletions = 0 < started_at < history.horizon
            if self._epoch != history.epoch or history.version < self._version or missed_deletions:
                was_loaded, started_at = self._version > 0, 0
                self._clear(history.epoch)
                if was_loaded:
                    continue
            if deltas:
                await run_in_thread(self._apply_deltas, deltas)
                self._version = deltas[-1].identity.version
            if len(deltas) < _PAGE:
                self._version = history.version
                return history

    async def apply_changes(self, deltas: Sequence[IdentityDelta], first: int, last: int) -> None:
        """Apply the changes that this program has just written.

        They are all of the versions `first` to `last`.

        An index that is at another version reads them from the registry at its next search.
        """
        async with self._lock:
            if self._epoch is not None and self._version == first - 1:
                await run_in_thread(self._apply_deltas, deltas)
                self._version = last

    def _clear(self, epoch: str) -> None:
        self._index = VectorIndex(self._space.dimension)
        self._epoch = epoch
        self._version = 0

    def _apply_deltas(self, deltas: Sequence[IdentityDelta]) -> None:
        for delta in deltas:
            # The delta of a deleted identity has no templates.
            vectors = [
                to_array(template.vector) for template in delta.templates if template.space == self._space.id
            ]
            if vectors:
                self._index.put(delta.identity.user_id, np.stack(vectors))
            else:
                self._index.remove(delta.identity.user_id)


class IdentityIndexes:
    """One index per space, created at its first use."""

    def __init__(self, changes: DeltaQueries) -> None:
        self._changes = changes
        self._indexes: dict[str, IdentityIndex] = {}

    def for_space(self, space: EmbeddingSpace) -> IdentityIndex:
        return self._indexes.setdefault(space.id, IdentityIndex(self._changes, space))

    async def apply_changes(self, deltas: Sequence[IdentityDelta], first: int, last: int) -> None:
        """Pass changes to every index in use; see IdentityIndex.apply_changes."""
        for index in list(self._indexes.values()):
            await index.apply_changes(deltas, first, last)
