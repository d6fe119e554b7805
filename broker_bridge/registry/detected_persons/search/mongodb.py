"""Search engine `mongodb`: MongoDB's own $vectorSearch. Approximate.

https://www.mongodb.com/docs/vector-search/query/aggregation-stages/vector-search-stage/
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bson.binary import VECTOR_SUBTYPE, Binary
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.identities.documents import FLOAT32_HEADER
from broker_bridge.registry.mongo.client import Document, Mongo, RegistryUnavailableError, explain_refusal

from .engine import FaceCandidate
from .ranking import most_similar
from .recent import RecentWrites

_log = logging.getLogger(__name__)

_COLLECTION = "person_faces"
_ACCESS_DENIED = {13, 18}  # Unauthorized, AuthenticationFailed.
_INDEX_EXISTS = 68
# More neighbours than wanted are read: the order by cosine is not that by mean cosine.
_SPARE = 4
# The documentation advises 20 times as many candidates as results, and allows 10,000.
_NEIGHBOURS_PER_RESULT = 20
_MAX_NEIGHBOURS = 10_000


class MongoVectorSearch:
    """One search index per dimension, created at the first use of a space.

    The search index is some seconds behind the collection: this program's own writes of the last
    `recent_seconds` are compared in memory beside it; `clock` returns seconds.
    """

    def __init__(
        self,
        mongo: Mongo,
        index: str,
        recent_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        poll_seconds: float = 1.0,
    ) -> None:
        self._mongo = mongo
        # Search stages accept no other read concern.
        self._faces: Any = mongo.db[_COLLECTION].with_options(read_concern=ReadConcern("local"))
        self._index = index
        self._recent = RecentWrites(recent_seconds, clock)
        self._poll_seconds = poll_seconds
        self._preparing: dict[int, asyncio.Lock] = {}
        self._queryable: set[int] = set()
        self.counters: Counter[str] = Counter()

    async def check(self) -> None:
        """Raise RegistryUnavailableError unless the deployment has $vectorSearch."""
        try:
            await self._state(self._index)
        except OperationFailure as error:
            if error.code in _ACCESS_DENIED:
                sentence = explain_refusal(error, self._mongo.hosts, self._mongo.db.name)
                raise RegistryUnavailableError(sentence) from error
            raise RegistryUnavailableError(
                f'search.engine is "mongodb", but MongoDB at {self._mongo.hosts} has no $vectorSearch (code '
                f"{error.code}), which needs MongoDB Atlas or a search node beside MongoDB 8.2 or later: set "
                'search.engine (WFM_SEARCH__ENGINE) to "memory"'
            ) from error

    async def candidates(
        self, space: EmbeddingSpace, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        """Return the candidates as FaceSearch.candidates does; approximate.

        Raises RegistryError.
        """
        await self.prepare_space(space)
        return list(await asyncio.gather(*(self._search(space, one, limit, floor) for one in vectors)))

    async def prepare_space(self, space: EmbeddingSpace) -> None:
        """Create the search index of the dimension if needed, and wait until it answers.

        An index that is still being built finds no person, and each face would make a new one.
        """
        async with self._preparing.setdefault(space.dimension, asyncio.Lock()):
            if space.dimension in self._queryable:
                return
            await self._wait_for(self._name(space), space.dimension)
            self._queryable.add(space.dimension)

    def record_centroid(self, global_id: int, face: FaceCentroid) -> None:
        """Find a person by `face` from the next search on."""
        self._recent.record_centroid(global_id, face)

    def record_deletion(self, global_id: int) -> None:
        """Find a person no more, in any space."""
        self._recent.record_deletion(global_id)

    async def follow_changes(self) -> None:
        """Wait until cancelled: MongoDB keeps its search index up to date itself."""
        await asyncio.Event().wait()

    def _name(self, space: EmbeddingSpace) -> str:
        return f"{self._index}-{space.dimension}"

    async def _state(self, name: str) -> Document | None:
        """Return the description of a search index; None if there is none."""
        found = await self._aggregate([{"$listSearchIndexes": {"name": name}}])
        return found[0] if found else None

    async def _wait_for(self, name: str, dimension: int) -> None:
        logged = ""
        while (state := await self._state(name)) is None or not state.get("queryable"):
            status = "not there" if state is None else str(state.get("status"))
            if status != logged:
                _log.warning("face search waits for a search index index=%s status=%r", name, status)
                logged = status
            if state is None:
                await self._make(name, dimension)
            await asyncio.sleep(self._poll_seconds)

    async def _make(self, name: str, dimension: int) -> None:
        index = {"name": name, "type": "vectorSearch", "definition": definition(dimension)}
        try:
            await self._mongo.db.command({"createSearchIndexes": _COLLECTION, "indexes": [index]})
        except OperationFailure as error:
            # Another program that started at the same moment has created it.
            if error.code != _INDEX_EXISTS:
                raise

    async def _search(
        self, space: EmbeddingSpace, vector: Vector, limit: int, floor: float
    ) -> list[FaceCandidate]:
        self.counters["searches"] += 1
        found = await self._aggregate(search_pipeline(self._name(space), space, vector, limit))
        indexed = [_candidate(one) for one in found if not self._recent.overrides(space.id, one["person"])]
        recent = self._recent.candidates(space.id, vector, limit, floor)
        return [one for one in most_similar([*indexed, *recent]) if one.similarity >= floor][:limit]

    async def _aggregate(self, pipeline: list[Document]) -> list[Document]:
        cursor = self._faces.aggregate(pipeline)
        if self._mongo.driver == "pymongo":
            cursor = await cursor
        found: list[Document] = await cursor.to_list(None)
        return found


def definition(dimension: int) -> Document:
    """Of a search index over faces of one dimension, any space."""
    return {
        "fields": [
            {"type": "vector", "path": "vector", "numDimensions": dimension, "similarity": "cosine"},
            {"type": "filter", "path": "space"},
        ]
    }


def search_pipeline(index: str, space: EmbeddingSpace, vector: Vector, limit: int) -> list[Document]:
    """Return the pipeline for several times `limit` persons, nearest first."""
    neighbours = min(_MAX_NEIGHBOURS, _SPARE * limit)
    search = {
        "index": index,
        "path": "vector",
        "queryVector": Binary(FLOAT32_HEADER + vector.astype("<f4").tobytes(), VECTOR_SUBTYPE),
        "filter": {"space": space.id},
        "numCandidates": min(_MAX_NEIGHBOURS, _NEIGHBOURS_PER_RESULT * neighbours),
        "limit": neighbours,
    }
    projection = {"person": 1, "consistency": 1, "score": {"$meta": "vectorSearchScore"}}
    return [{"$vectorSearch": search}, {"$project": projection}]


def _candidate(found: Document) -> FaceCandidate:
    # The score of a cosine index is (1 + cosine) / 2.
    return FaceCandidate(found["person"], (2 * found["score"] - 1) * found["consistency"])
