"""One vector in one `.npy` file: read with suspicion, written whole or not at all."""

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from broker_bridge.common.npy import NpyFileError

SUFFIX = ".npy"
MOST_BYTES = 64 * 1024
"""A float32[4096], the largest vector there is, has a quarter of it."""
TEMPORARY = (".wfm-", ".tmp")
"""How the names of files begin and end that are being written."""


class FileMovedError(Exception):
    """The file is not, or no longer, the one that was looked at: look again."""


class Signature(NamedTuple):
    """What changes whenever a file's content may have."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Signature":
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


def hash_content(data: bytes) -> bytes:
    """BLAKE2b of a file's bytes, 16 of them."""
    return hashlib.blake2b(data, digest_size=16).digest()


def list_npy(folder: Path) -> dict[str, Signature]:
    """Every entry of `folder` that ends in `.npy`, links and folders too. Raises OSError."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    found[entry.name] = Signature.of(entry.stat(follow_symlinks=False))
    return found


def read_bytes(path: Path, expected: Signature) -> bytes:
    """The bytes of the file that was seen as `expected`, at most `MOST_BYTES`.

    Raises NpyFileError, or FileMovedError if the file is another by now.
    """
    if stat.S_ISLNK(expected.mode):
        raise NpyFileError("it is a symbolic link, and links are not followed")
    if not stat.S_ISREG(expected.mode):
        raise NpyFileError("it is not an ordinary file")
    if expected.size > MOST_BYTES:
        raise NpyFileError(f"it has {expected.size} bytes, at most {MOST_BYTES} are read")
    try:
        # Not blocking: a pipe may have taken the file's place.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as file:
            if Signature.of(os.fstat(handle)) != expected:
                raise FileMovedError
            data = file.read(MOST_BYTES + 1)
            if Signature.of(os.fstat(handle)) != expected or len(data) != expected.size:
                raise FileMovedError
    except FileNotFoundError as error:
        raise FileMovedError from error
    except OSError as error:
        raise NpyFileError(f"it cannot be read ({error.strerror})") from error
    return data


def write_npy(path: Path, data: bytes) -> Signature:
    """Put `data` in the place of `path`, readable by its owner alone; raises OSError and leaves no rest."""
    begin, end = TEMPORARY
    temporary = path.with_name(f"{begin}{secrets.token_hex(8)}{end}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return Signature.of(path.lstat())


def remove_temporary(folder: Path) -> None:
    """Remove what a process left that died while it wrote. Raises OSError."""
    begin, end = TEMPORARY
    for file in folder.glob(f"{begin}*{end}"):
        file.unlink(missing_ok=True)
