"""Who in the registry a vector is nearest to: one index per space, kept up with the registry by version."""

import asyncio
from collections.abc import Sequence

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace, to_array
from broker_bridge.registry.identities.model import IdentityDelta
from broker_bridge.registry.mongo.threads import run_in_thread
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.sync.changes import DeltaQueries
from broker_bridge.vectors.index import Nearest, VectorIndex

# The driver decodes a page on the event loop: 200 people take it some 40 ms.
_PAGE = 200
# Vectors times templates that are searched on the event loop: in some 0.2 ms, where a thread costs 0.1.
_SEARCHED_AT_ONCE = 20_000


class IdentityIndex:
    """Everybody's templates in one space, loaded when first asked.

    Deleted people are not in it. Loading and longer searches run in a thread, one at a time.
    """

    def __init__(self, changes: DeltaQueries, space: EmbeddingSpace) -> None:
        self._changes = changes
        self._space = space
        self._index = VectorIndex(space.dimension)
        self._epoch: str | None = None
        self._version = 0
        self._lock = asyncio.Lock()

    async def find(self, vector: bytes, floor: float) -> tuple[History, Nearest | None]:
        """The nearest person to `vector`; see find_all."""
        history, (found,) = await self.find_all([vector], floor)
        return history, found

    async def find_all(self, vectors: Sequence[bytes], floor: float) -> tuple[History, list[Nearest | None]]:
        """For each of `vectors` (float32[d], unit length) the nearest person among all in the registry.

        None where nobody has a cosine similarity of `floor` or more. The history says as of when. Raises
        RegistryError.
        """
        async with self._lock:
            history = await self._catch_up()
            return history, await self._search(vectors, floor)

    async def find_all_loaded(self, vectors: Sequence[bytes], floor: float) -> list[Nearest | None]:
        """As find_all, as of when the index was last asked: for who knows that nothing has changed since."""
        async with self._lock:
            return await self._search(vectors, floor)

    async def _search(self, vectors: Sequence[bytes], floor: float) -> list[Nearest | None]:
        queries = np.stack([to_array(vector) for vector in vectors])
        if len(self._index) * len(queries) <= _SEARCHED_AT_ONCE:
            nearest = self._index.search(queries, floor)
        else:
            nearest = await run_in_thread(self._index.search, queries, floor)
        # Below the floor the index answers whomever it came across.
        return [found if found is not None and found.similarity >= floor else None for found in nearest]

    async def _catch_up(self) -> History:
        stood_at = self._version
        while True:
            history, changed = await self._changes.deltas_after(self._version, _PAGE, [self._space.id])
            # Of whom was deleted below the horizon nothing tells any more.
            lost_sight = 0 < stood_at < history.horizon
            if self._epoch != history.epoch or history.version < self._version or lost_sight:
                begun, stood_at = self._version > 0, 0
                self._begin(history.epoch)
                if begun:
                    continue
            if changed:
                await run_in_thread(self._take, changed)
                self._version = changed[-1].identity.version
            if len(changed) < _PAGE:
                self._version = history.version
                return history

    async def apply_changes(self, changed: Sequence[IdentityDelta], first: int, last: int) -> None:
        """Take in what this program has just written as all of the versions `first` to `last`.

        If the index stands elsewhere, it reads them from the registry when it is next asked.
        """
        async with self._lock:
            if self._epoch is not None and self._version == first - 1:
                await run_in_thread(self._take, changed)
                self._version = last

    def _begin(self, epoch: str) -> None:
        self._index = VectorIndex(self._space.dimension)
        self._epoch = epoch
        self._version = 0

    def _take(self, changed: Sequence[IdentityDelta]) -> None:
        for change in changed:
            # A deleted person comes without templates.
            held = [one for one in change.templates if one.space == self._space.id]
            if held:
                vectors = np.stack([to_array(one.vector) for one in held])
                self._index.put(change.identity.user_id, vectors)
            else:
                self._index.remove(change.identity.user_id)


class IdentityIndexes:
    """One index per space, made when it is first asked for."""

    def __init__(self, changes: DeltaQueries) -> None:
        self._changes = changes
        self._indexes: dict[str, IdentityIndex] = {}

    def for_space(self, space: EmbeddingSpace) -> IdentityIndex:
        return self._indexes.setdefault(space.id, IdentityIndex(self._changes, space))

    async def apply_changes(self, changed: Sequence[IdentityDelta], first: int, last: int) -> None:
        """As PeopleIndex.follow, for every space that was asked for."""
        for index in list(self._indexes.values()):
            await index.apply_changes(changed, first, last)
