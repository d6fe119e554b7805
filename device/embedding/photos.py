"""Photo after photo to a face or a reason why not: fetched ahead, embedded one at a time, never kept."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from broker_bridge.contract.embeddings import EmbeddingSpace
from device.vision.photo_embedder import PhotoError, PhotoFace

from .backend import EmbeddedFace
from .catalog import METADATA_INVALID, Catalog, CatalogPhoto, UnreadableEntry
from .errors import PhotoSkippedError

NO_PERSON = "no-person"
NO_NAME = "no-name"

PHOTOS_IN_MEMORY = 4
"""One that is looked at, and those that are fetched meanwhile."""

Listed = str | CatalogPhoto | UnreadableEntry
"""A photo of a job: its id alone, or its metadata from a listing, or an entry that was none."""
Seen = EmbeddedFace | str
"""What a photo came to: a face, or the reason why there is none."""


class InSpace(Protocol):
    @property
    def space(self) -> EmbeddingSpace: ...


class VectorMaker(Protocol):
    @property
    def embedder(self) -> InSpace:
        """What says in which space the vectors are."""
        ...

    def embed_photo(self, data: bytes, /) -> PhotoFace:
        """The one face in a JPEG or PNG; raises PhotoError."""
        ...


class PhotoReader:
    """Faces of photos. A photo's bytes live from its arrival to its vector, at most four at once."""

    def __init__(self, catalog: Catalog, embedder: VectorMaker) -> None:
        self._catalog = catalog
        self._embedder = embedder

    async def read(self, listed: Iterable[Listed]) -> AsyncIterator[Seen]:
        """What each photo came to, in the order of `listed`. Raises AwayError or AccessRefusedError."""
        waiting = iter(listed)
        ahead = deque(map(self._begin, itertools.islice(waiting, PHOTOS_IN_MEMORY)))
        try:
            while ahead:
                yield await self._look(ahead[0])
                # Only now: its bytes are gone, and there is room for another.
                ahead.popleft()
                ahead.extend(map(self._begin, itertools.islice(waiting, 1)))
        finally:
            for fetch in ahead:
                fetch.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _begin(self, listed: Listed) -> "asyncio.Task[_Loaded]":
        return asyncio.ensure_future(self._load(listed))

    async def _load(self, listed: Listed) -> "_Loaded":
        if isinstance(listed, UnreadableEntry):
            raise PhotoSkippedError(METADATA_INVALID)
        photo = await self._catalog.find(listed) if isinstance(listed, str) else listed
        if photo.person_id is None:
            raise PhotoSkippedError(NO_PERSON)
        if not photo.person_name or photo.person_name.isspace():
            raise PhotoSkippedError(NO_NAME)
        return _Loaded(photo.person_id, photo.person_name, await self._catalog.load(photo))

    async def _look(self, fetch: "asyncio.Task[_Loaded]") -> Seen:
        try:
            loaded = await fetch
            face = await asyncio.to_thread(self._embedder.embed_photo, loaded.take())
        except PhotoSkippedError as error:
            return error.reason
        except PhotoError as error:
            return error.code
        return EmbeddedFace(loaded.external_id, loaded.name, face.vector, round(face.quality, 4))


class _Loaded:
    """A photo's bytes, which can be taken once, and whose it is."""

    def __init__(self, external_id: str, name: str, data: bytes) -> None:
        self.external_id = external_id
        self.name = name
        self._data = data

    def take(self) -> bytes:
        data, self._data = self._data, b""
        return data
