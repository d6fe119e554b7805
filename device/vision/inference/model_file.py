"""Hash a model file and detect a later change of it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .session import ModelError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A model file: path, hash, inode, size and time of change.

    `sha256` is in hex.

    The file is hashed in chunks and then loaded by path, from the page cache. A small camera has no room
    for a few hundred megabytes besides the loaded network, and external weights are found only by path.
    """

    path: Path
    sha256: str
    _identity: tuple[int, int, int]

    @classmethod
    def read(cls, path: Path) -> "ModelFile":
        """Hash the file at `path`. Raises ModelError when it is unreadable or empty."""
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
        """Raise ModelError when the file has changed since it was hashed."""
        try:
            now = _identity(self.path.stat())
        except OSError as error:
            raise ModelError(f"the model {self.path} cannot be read: {error.strerror}") from error
        if now != self._identity:
            raise ModelError(f"the model {self.path} was changed while it was loaded: start again")


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
