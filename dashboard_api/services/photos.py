"""Enrollment by photo: one photo at a time becomes a face vector."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

PHOTO_TYPES = ("image/jpeg", "image/png", "image/webp")


class Warned(Protocol):
    """What would make a better photo: a stable code, and a sentence."""

    @property
    def code(self) -> str: ...

    @property
    def detail(self) -> str: ...


class PhotoVector(Protocol):
    """The face of a photo.

    `vector` is float32[d], little-endian, of unit length; `quality` is 0..1. It may have `warnings`, a
    sequence of `Warned`: what would make a better photo.
    """

    @property
    def vector(self) -> bytes: ...

    @property
    def quality(self) -> float: ...


def warnings_of(photo: PhotoVector) -> Sequence[Warned]:
    """Return the warnings of a photo; an embedding need not give any."""
    warnings: Sequence[Warned] = getattr(photo, "warnings", ())
    return warnings


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
