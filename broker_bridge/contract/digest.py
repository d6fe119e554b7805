"""Compute the gallery digest, by which device and registry compare templates.

Per space, the digest is the XOR over templates of an 8-byte BLAKE2b of `user_id NUL space NUL vector bytes`.
XOR does not depend on order and is its own inverse, so both sides update it template by template.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


def template_hash(user_id: str, space: str, vector: bytes) -> int:
    """Return the 64-bit contribution of one template to its space's digest."""
    key = user_id.encode() + b"\0" + space.encode() + b"\0" + vector
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Digest:
    """The number of templates and the XOR of their hashes."""

    count: int = 0
    value: int = 0

    def plus(self, other: "Digest") -> "Digest":
        return Digest(self.count + other.count, self.value ^ other.value)

    def minus(self, other: "Digest") -> "Digest":
        return Digest(self.count - other.count, self.value ^ other.value)

    @property
    def hex(self) -> str:
        """Return the sixteen hex digits of the wire form."""
        return f"{self.value:016x}"

    @classmethod
    def of(cls, user_id: str, space: str, vectors: Iterable[bytes]) -> "Digest":
        """Return the digest of one identity's templates in one space."""
        total = cls()
        for vector in vectors:
            total = total.plus(cls(1, template_hash(user_id, space, vector)))
        return total
