"""Enrollment by photo, as the API sees it: what embeds is passed in."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

PHOTO_TYPES = ("image/jpeg", "image/png")


class PhotoVector(Protocol):
    """The one face of a photo: `vector` little-endian float32[d] of unit length, `quality` 0..1."""

    @property
    def vector(self) -> bytes: ...

    @property
    def quality(self) -> float: ...


class FaceEmbedding(Protocol):
    """Makes a vector of a photo; raises ContractError `photo-invalid`, `photo-no-face` and the like."""

    def embed_photo(self, data: bytes, /) -> PhotoVector: ...


@dataclass(frozen=True)
class PhotoService:
    """Embeds one photo at a time in a worker thread: decoding a large one takes its whole size in memory."""

    embedder: FaceEmbedding
    turn: asyncio.Lock

    async def embed(self, data: bytes) -> PhotoVector:
        async with self.turn:
            return await asyncio.to_thread(self.embedder.embed_photo, data)
