"""The gallery digest: what a device and the registry compare to know that they hold the same templates.

Per space, the XOR over templates of an 8-byte BLAKE2b of `user_id NUL space NUL vector bytes`. XOR makes it
free of order and its own inverse, so both sides keep it up to date row by row.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


def template_hash(user_id: str, space: str, vector: bytes) -> int:
    """The 64-bit contribution of one template to its space's digest."""
    key = user_id.encode() + b"\0" + space.encode() + b"\0" + vector
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Digest:
    """Number of templates and XOR of their hashes; adding or removing another digest is plain arithmetic."""

    count: int = 0
    value: int = 0

    def plus(self, other: "Digest") -> "Digest":
        return Digest(self.count + other.count, self.value ^ other.value)

    def minus(self, other: "Digest") -> "Digest":
        return Digest(self.count - other.count, self.value ^ other.value)

    @property
    def hex(self) -> str:
        """Sixteen hex digits, as it stands on the wire."""
        return f"{self.value:016x}"

    @classmethod
    def of(cls, user_id: str, space: str, vectors: Iterable[bytes]) -> "Digest":
        """The digest of one person's templates in one space."""
        total = cls()
        for vector in vectors:
            total = total.plus(cls(1, template_hash(user_id, space, vector)))
        return total
