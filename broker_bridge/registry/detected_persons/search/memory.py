"""Search engine "memory": everybody in this program's memory, kept current by MongoDB's change stream."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.documents import vector_of
from broker_bridge.registry.detected_persons.tracker_store import TrackerStore
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.errors import RegistryError, cannot_resume

from .engine import FaceCandidate
from .space_index import IndexedCentroid, SpaceIndex

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_KEEP_UP_SECONDS = 5.0
_COLLECTION = "person_faces"
_WRITES = ("insert", "update", "replace", "delete")
# An update's event would have the vector twice.
_TOLD = dict.fromkeys(("operationType", "documentKey", "fullDocument.vector", "fullDocument.consistency"), 1)
_EVENTS_AT_ONCE = 200


class InMemoryFaceSearch:
    """Everybody who is known, in a space as soon as somebody asks about it. Exact: nobody is overlooked.

    `confirm_seconds`: so long this program's own word is taken for what it has learned, unless MongoDB says
    otherwise; `clock` tells seconds.
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
        """As FaceSearch.candidates; exact down to `floor`."""
        return await self._faces_in(space).candidates(vectors, limit, floor)

    async def prepare_space(self, space: EmbeddingSpace) -> None:
        """Load the space now."""
        await self._faces_in(space).load()

    def record_centroid(self, global_id: int, face: FaceCentroid) -> None:
        """As FaceSearch.learned: the next answer knows it."""
        faces = self._faces_in(EmbeddingSpace(face.space, len(face.mean)))
        faces.claim(global_id, IndexedCentroid.of(face), self._clock())

    def record_deletion(self, global_id: int) -> None:
        """As FaceSearch.forgotten, in every space."""
        for faces in self._spaces.values():
            faces.claim(global_id, None, self._clock())

    def _faces_in(self, space: EmbeddingSpace) -> SpaceIndex:
        if space.id not in self._spaces:
            self._spaces[space.id] = SpaceIndex(self._store, space, self._mark, self.counters)
        return self._spaces[space.id]

    async def follow_changes(self) -> None:
        """Follow the change stream until cancelled; what it cannot tell is read anew."""
        await asyncio.gather(self._follow(), self._keep_up())

    async def _follow(self) -> None:
        while True:
            try:
                for faces in list(self._spaces.values()):
                    await faces.keep_up()
                await self._mark()
                await self._hear_changes()
            except RegistryError as error:
                self.counters["stream_breaks"] += 1
                _log.warning("the changes of faces cannot be followed: %s", type(error).__name__)
                if cannot_resume(error):
                    self._lose_track()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _keep_up(self) -> None:
        """Nobody may be asking for hours: what was told meanwhile would fill the memory."""
        while True:
            await asyncio.sleep(min(_KEEP_UP_SECONDS, self._confirm_seconds))
            try:
                for faces in list(self._spaces.values()):
                    await faces.check_claims(self._clock() - self._confirm_seconds)
                    await faces.keep_up()
            except RegistryError as error:
                self.counters["failed_checks"] += 1
                _log.warning("what was learned cannot be confirmed: %s", type(error).__name__)

    async def _mark(self) -> None:
        """Note from where changes are to be heard, unless that is noted; what is read now has all before."""
        if self._token is None:
            async with self._mongo.watch([], _COLLECTION, max_await_time_ms=1) as stream:
                # It is open then. A change that comes with it is one that the reading afterwards will see.
                await stream.try_next()
                # Another task may have been quicker; nobody has read anything yet.
                self._token = self._token or stream.resume_token
        await self._mongo.catch_up()

    async def _hear_changes(self) -> None:
        """Take in changes until they end with the collection, which loses track, or the stream breaks."""
        options: dict[str, Any] = {"full_document": "updateLookup", "batch_size": _EVENTS_AT_ONCE}
        async with self._mongo.watch(
            [{"$project": _TOLD}], _COLLECTION, resume_after=self._token, **options
        ) as stream:
            async for change in stream:
                if change["operationType"] not in _WRITES:
                    break
                self._hear(change)
                # Not the stream's own, which with PyMongo 4.20 is one change behind.
                self._token = change["_id"]
        self._lose_track()

    def _hear(self, change: Document) -> None:
        person, _, space = str(change["documentKey"]["_id"]).partition(" ")
        faces = self._spaces.get(space)
        if faces is None or not person.isdecimal():
            return
        self.counters["changes"] += 1
        # Of an update it is how things stand now: nothing, if it was deleted since.
        now = change.get("fullDocument") or {}
        is_there = "vector" in now and "consistency" in now
        faces.hear(
            int(person), IndexedCentroid(vector_of(now["vector"]), now["consistency"]) if is_there else None
        )

    def _lose_track(self) -> None:
        _log.info("the collection of faces has begun anew or its changes are lost: reading everything again")
        self._token = None
        for faces in self._spaces.values():
            faces.lose_track()
