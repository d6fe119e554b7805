"""Enrollment by photo, as the API sees it: what embeds is passed in."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

PHOTO_TYPES = ("image/jpeg", "image/png")


class Face(Protocol):
    """The one face of a photo: `vector` little-endian float32[d] of unit length, `quality` 0..1."""

    @property
    def vector(self) -> bytes: ...

    @property
    def quality(self) -> float: ...


class PhotoEmbedder(Protocol):
    """Makes a vector of a photo; raises ContractError `photo-invalid`, `photo-no-face` and the like."""

    def embed_photo(self, data: bytes, /) -> Face: ...


@dataclass(frozen=True)
class Photos:
    """Embeds one photo at a time in a worker thread: decoding a large one takes its whole size in memory."""

    embedder: PhotoEmbedder
    turn: asyncio.Lock

    async def embed(self, data: bytes) -> Face:
        async with self.turn:
            return await asyncio.to_thread(self.embedder.embed_photo, data)
