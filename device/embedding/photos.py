"""Turn photos into faces: prefetch in order, embed one at a time, keep none."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from device.vision.photo_embedder import PhotoFace
from device.vision.photos.errors import PhotoError

from .backend import EmbeddedFace
from .catalog import METADATA_INVALID, Catalog, CatalogPhoto, UnreadableEntry
from .errors import PhotoSkippedError

NO_PERSON = "no-person"
NO_NAME = "no-name"

PHOTOS_IN_MEMORY = 4
"""The photo that is embedded, and those that are prefetched."""

PhotoEntry = str | CatalogPhoto | UnreadableEntry
"""A photo of a job: its id, its metadata from a listing, or an unreadable entry."""
PhotoResult = EmbeddedFace | str
"""The result of a photo: a face, or the reason for having none."""


class PhotoFaceEmbedder(Protocol):
    def embed_photo(self, data: bytes, /) -> PhotoFace:
        """Return the one face in a JPEG, PNG or WebP; raises PhotoError."""
        ...


class PhotoReader:
    """Read the faces of photos, with at most four photos in memory."""

    def __init__(self, catalog: Catalog, embedder: PhotoFaceEmbedder) -> None:
        self._catalog = catalog
        self._embedder = embedder

    async def read_faces(self, entries: Iterable[PhotoEntry]) -> AsyncIterator[PhotoResult]:
        """Yield the result of each photo, in the order of `entries`.

        Raises ServiceUnavailableError or AccessRefusedError.
        """
        waiting = iter(entries)
        ahead = deque(map(self._prefetch, itertools.islice(waiting, PHOTOS_IN_MEMORY)))
        try:
            while ahead:
                yield await self._embed(ahead[0])
                # Removed only now, when its bytes are dropped and there is room for the next.
                ahead.popleft()
                ahead.extend(map(self._prefetch, itertools.islice(waiting, 1)))
        finally:
            for fetch in ahead:
                fetch.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _prefetch(self, entry: PhotoEntry) -> "asyncio.Task[_Loaded]":
        return asyncio.ensure_future(self._load(entry))

    async def _load(self, entry: PhotoEntry) -> "_Loaded":
        if isinstance(entry, UnreadableEntry):
            raise PhotoSkippedError(METADATA_INVALID)
        photo = await self._catalog.find(entry) if isinstance(entry, str) else entry
        if photo.person_id is None:
            raise PhotoSkippedError(NO_PERSON)
        if not photo.person_name or photo.person_name.isspace():
            raise PhotoSkippedError(NO_NAME)
        return _Loaded(photo.person_id, photo.person_name, await self._catalog.load(photo))

    async def _embed(self, fetch: "asyncio.Task[_Loaded]") -> PhotoResult:
        try:
            loaded = await fetch
            face = await asyncio.to_thread(self._embedder.embed_photo, loaded.take_data())
        except PhotoSkippedError as error:
            return error.reason
        except PhotoError as error:
            return error.code
        return EmbeddedFace(loaded.external_id, loaded.name, face.vector, round(face.quality, 4))


class _Loaded:
    """A photo's bytes, which can be taken once, with its identity."""

    def __init__(self, external_id: str, name: str, data: bytes) -> None:
        self.external_id = external_id
        self.name = name
        self._data = data

    def take_data(self) -> bytes:
        data, self._data = self._data, b""
        return data
