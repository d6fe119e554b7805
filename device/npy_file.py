"""One vector in one `.npy` file: read with suspicion, written whole or not at all."""

import hashlib
import io
import os
import secrets
import stat
import tokenize
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError

SUFFIX = ".npy"
MOST_BYTES = 64 * 1024
"""A float32[4096], the largest vector there is, has a quarter of it."""
TEMPORARY = (".wfm-", ".tmp")
"""How the names of files begin and end that are being written."""

# All that NumPy lets through when a header is nonsense.
_NONSENSE = (
    ValueError,
    SyntaxError,
    TypeError,
    MemoryError,
    RecursionError,
    OverflowError,
    tokenize.TokenError,
)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class NpyFileError(ValueError):
    """A file holds no vector of the space. The sentence says what is wrong and quotes nothing of it."""


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


def parse_npy(data: bytes, dimension: int) -> bytes:
    """The unit vector (float32 bytes) in the bytes of an `.npy` file of float32[d] or float32[1,d].

    Nothing is unpickled, and nothing allocated by what the header claims. Raises NpyFileError.
    """
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = _HEADERS[version](stream)
    except KeyError as error:
        raise NpyFileError("its version of the npy format is not supported, expected 1.0 or 2.0") from error
    except _NONSENSE as error:
        raise NpyFileError("it is no .npy file, or the beginning of one") from error
    if dtype.hasobject:
        raise NpyFileError("it holds pickled objects, which are never loaded; expected float32")
    if (dtype.kind, dtype.itemsize) != ("f", 4):
        raise NpyFileError(f"its type is {dtype.name[:40]}, expected float32")
    if shape not in ((dimension,), (1, dimension)):
        found = ",".join(map(str, shape[:4]))[:60]
        raise NpyFileError(f"its shape is [{found}], expected [{dimension}] or [1,{dimension}]")
    body = data[stream.tell() :]
    if len(body) != 4 * dimension:
        what = "incomplete" if len(body) < 4 * dimension else "longer than its header says"
        raise NpyFileError(f"it is {what}: {len(body)} bytes of numbers, expected {4 * dimension}")
    try:
        # A signalling NaN would warn on its way to the sentence that refuses it.
        with np.errstate(invalid="ignore"):
            return normalise(np.frombuffer(body, dtype=dtype), dimension)
    except ContractError as error:
        raise NpyFileError(error.detail) from error


def to_npy(vector: bytes) -> bytes:
    """The bytes of a `.npy` file that holds `vector` (little-endian float32 bytes)."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(vector) // 4,)}
    npy.write_array_header_1_0(stream, header)
    return stream.getvalue() + vector


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
