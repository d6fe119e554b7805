"""One vector in one `.npy` file: checked when read, written atomically."""

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from broker_bridge.common.npy import NpyFileError

SUFFIX = ".npy"
MAX_BYTES = 64 * 1024
"""Four times the largest vector, a float32[4096]."""
TEMPORARY = (".wfm-", ".tmp")
"""Prefix and suffix of the names of files that are being written."""


class FileMovedError(Exception):
    """The file changed since it was listed; list the folder again."""


class Signature(NamedTuple):
    """The attributes that change whenever a file's content may have changed."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Signature":
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


def hash_content(data: bytes) -> bytes:
    """Return the 16-byte BLAKE2b hash of a file's bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def list_npy(folder: Path) -> dict[str, Signature]:
    """Return every entry of `folder` that ends in `.npy`. Raises OSError.

    Links and folders are included.
    """
    entries_found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    entries_found[entry.name] = Signature.of(entry.stat(follow_symlinks=False))
    return entries_found


def read_bytes(path: Path, expected: Signature) -> bytes:
    """Return the bytes of the file with the signature `expected`, at most `MAX_BYTES`.

    Raises NpyFileError, or FileMovedError if the file has changed since.
    """
    if stat.S_ISLNK(expected.mode):
        raise NpyFileError("it is a symbolic link; links are not followed")
    if not stat.S_ISREG(expected.mode):
        raise NpyFileError("it is not an ordinary file")
    if expected.size > MAX_BYTES:
        raise NpyFileError(f"it has {expected.size} bytes, expected at most {MAX_BYTES}")
    try:
        # Not blocking: a pipe may have replaced the file.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as file:
            if Signature.of(os.fstat(handle)) != expected:
                raise FileMovedError
            data = file.read(MAX_BYTES + 1)
            if Signature.of(os.fstat(handle)) != expected or len(data) != expected.size:
                raise FileMovedError
    except FileNotFoundError as error:
        raise FileMovedError from error
    except OSError as error:
        raise NpyFileError(f"it cannot be read ({error.strerror})") from error
    return data


def write_npy(path: Path, data: bytes) -> Signature:
    """Replace `path` by `data`, readable by its owner alone.

    Raises OSError and leaves no temporary file.
    """
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
    """Remove temporary files of a process that died while writing. Raises OSError."""
    begin, end = TEMPORARY
    for file in folder.glob(f"{begin}*{end}"):
        file.unlink(missing_ok=True)
