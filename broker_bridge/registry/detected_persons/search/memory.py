"""Search all centroids in memory, kept up to date by a change stream."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from broker_bridge.common.retry import Backoff, repeat
from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.documents import vector_of
from broker_bridge.registry.detected_persons.tracker_store import TrackerStore
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.errors import RegistryError, cannot_resume

from .centroids import IndexedCentroid
from .engine import FaceCandidate
from .space_index import SpaceIndex

_log = logging.getLogger(__name__)

_RETRY = Backoff(0.5, 0.5)
_KEEP_UP_SECONDS = 5.0
_COLLECTION = "person_faces"
_WRITES = ("insert", "update", "replace", "delete")
# An update's event would have the vector twice.
_PROJECTION = dict.fromkeys(
    ("operationType", "documentKey", "fullDocument.vector", "fullDocument.consistency"), 1
)
_EVENTS_PER_BATCH = 200


class InMemoryFaceSearch:
    """An exact search; a space is loaded at its first use.

    A local write counts for `confirm_seconds` unless MongoDB reports otherwise; `clock` returns seconds.
    """

    def __init__(
        self,
        mongo: Mongo,
        store: TrackerStore,
        confirm_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mongo = mongo
        self._store = store
        self._confirm_seconds = confirm_seconds
        self._clock = clock
        self._spaces: dict[str, SpaceIndex] = {}
        self._token: Document | None = None
        self.counters: Counter[str] = Counter()

    async def candidates(
        self, space: EmbeddingSpace, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        """Return the candidates as FaceSearch.candidates does; exact down to `floor`."""
        return await self._index_of(space).candidates(vectors, limit, floor)

    async def prepare_space(self, space: EmbeddingSpace) -> None:
        """Load the space now. Raises RegistryError."""
        await self._index_of(space).load()

    def record_centroid(self, global_id: int, centroid: FaceCentroid) -> None:
        """Find a person by `centroid` from the next search on."""
        index = self._index_of(EmbeddingSpace(centroid.space, len(centroid.mean)))
        index.apply_local(global_id, IndexedCentroid.of(centroid), self._clock())

    def record_deletion(self, global_id: int) -> None:
        """Find a person no more, in any space."""
        for index in self._spaces.values():
            index.apply_local(global_id, None, self._clock())

    def _index_of(self, space: EmbeddingSpace) -> SpaceIndex:
        if space.id not in self._spaces:
            self._spaces[space.id] = SpaceIndex(self._store, space, self._mark_start, self.counters)
        return self._spaces[space.id]

    async def follow_changes(self) -> None:
        """Follow the change stream until cancelled.

        Read everything again when it has a gap.
        """
        await asyncio.gather(
            repeat(self._follow, on=RegistryError, report=self._report_break, backoff=_RETRY),
            self._keep_up(),
        )

    async def _follow(self) -> None:
        for index in list(self._spaces.values()):
            await index.keep_up()
        await self._mark_start()
        await self._apply_stream()

    def _report_break(self, error: Exception) -> None:
        self.counters["stream_breaks"] += 1
        _log.warning("face index lost its change stream; it opens another error=%s", type(error).__name__)
        if isinstance(error, RegistryError) and cannot_resume(error):
            self._invalidate()

    async def _keep_up(self) -> None:
        """Apply queued writes between searches, so that the queue does not grow."""
        interval = min(_KEEP_UP_SECONDS, self._confirm_seconds)

        async def keep_up() -> None:
            for index in list(self._spaces.values()):
                await index.check_local_writes(self._clock() - self._confirm_seconds)
                await index.keep_up()

        def report(error: Exception) -> None:
            self.counters["failed_checks"] += 1
            _log.warning(
                "face index cannot confirm local writes; it tries again error=%s", type(error).__name__
            )

        await asyncio.sleep(interval)
        await repeat(keep_up, on=RegistryError, report=report, backoff=Backoff(interval, interval))

    async def _mark_start(self) -> None:
        """Store where the change stream is to begin, unless it is stored.

        A later read has all before.
        """
        if self._token is None:
            async with self._mongo.watch([], _COLLECTION, max_await_time_ms=1) as stream:
                # It is open then. A change that comes with it is one that the read afterwards will have.
                await stream.try_next()
                # Another task may have been quicker; no task has read anything yet.
                self._token = self._token or stream.resume_token
        await self._mongo.catch_up()

    async def _apply_stream(self) -> None:
        """Apply changes until the stream breaks or ends with its collection."""
        options: dict[str, Any] = {"full_document": "updateLookup", "batch_size": _EVENTS_PER_BATCH}
        async with self._mongo.watch(
            [{"$project": _PROJECTION}], _COLLECTION, resume_after=self._token, **options
        ) as stream:
            async for change in stream:
                if change["operationType"] not in _WRITES:
                    break
                self._apply(change)
                # Not the stream's own token, which with PyMongo 4.20 is one change behind.
                self._token = change["_id"]
        self._invalidate()

    def _apply(self, change: Document) -> None:
        global_id, _, space = str(change["documentKey"]["_id"]).partition(" ")
        index = self._spaces.get(space)
        if index is None or not global_id.isdecimal():
            return
        self.counters["changes"] += 1
        # After an update this is the current document: empty if it was deleted since.
        document = change.get("fullDocument") or {}
        centroid = None
        if "vector" in document and "consistency" in document:
            centroid = IndexedCentroid(vector_of(document["vector"]), document["consistency"])
        index.apply_remote(int(global_id), centroid)

    def _invalidate(self) -> None:
        _log.info("face index reads everything again; its collection was replaced or changes were lost")
        self._token = None
        for index in self._spaces.values():
            index.invalidate()
