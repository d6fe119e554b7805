"""A model file as it was when it was hashed."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .session import ModelError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """`sha256` (hex) of the file at `path`, and what tells whether it is still that file.

    It is hashed in pieces and then loaded from its path, out of the page cache: holding a few hundred
    megabytes of it in memory besides the loaded network is what a small camera cannot afford, and weights
    that lie in files beside it are only found from its path.
    """

    path: Path
    sha256: str
    _identity: tuple[int, int, int]

    @classmethod
    def read(cls, path: Path) -> "ModelFile":
        """Raises ModelError when the file cannot be read or is empty."""
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                identity = _identity(os.fstat(file.fileno()))
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise ModelError(f"the model {path} cannot be read: {error.strerror}") from error
        if not identity[1]:
            raise ModelError(f"the model {path} is empty")
        return cls(path, digest.hexdigest(), identity)

    def check_unchanged(self) -> None:
        """Raises ModelError when the file is another one by now than the one that was hashed."""
        try:
            now = _identity(self.path.stat())
        except OSError as error:
            raise ModelError(f"the model {self.path} cannot be read: {error.strerror}") from error
        if now != self._identity:
            raise ModelError(f"the model {self.path} was changed while it was loaded: start again")


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
