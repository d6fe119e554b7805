"""Enrollment by photo: one photo at a time becomes a face vector."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

PHOTO_TYPES = ("image/jpeg", "image/png", "image/webp")


class PhotoVector(Protocol):
    """The face of a photo.

    `vector` is float32[d], little-endian, of unit length; `quality` is 0..1.
    """

    @property
    def vector(self) -> bytes: ...

    @property
    def quality(self) -> float: ...


class FaceEmbedding(Protocol):
    """Computes the vector of a photo; raises ContractError (`photo-no-face`, ...)."""

    def embed_photo(self, data: bytes, /) -> PhotoVector: ...


@dataclass(frozen=True)
class PhotoService:
    """Embeds one photo at a time in a worker thread, to bound the memory in use."""

    embedder: FaceEmbedding
    lock: asyncio.Lock

    async def embed(self, data: bytes) -> PhotoVector:
        async with self.lock:
            return await asyncio.to_thread(self.embedder.embed_photo, data)
