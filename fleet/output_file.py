"""Open the output file of a command, whatever kind of file its path names."""

import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import CannotRunError

_DESCRIPTOR = re.compile(r"/dev/stdout|/(?:dev|proc/self)/fd/(\d{1,6})")


@contextmanager
def open_output(file: str, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open `file` for writing; `-` is standard output.

    A regular file gets its name once it is complete, readable by its owner alone unless `mode` says more, and
    an error leaves the file of that name as it was. A symbolic link is followed. A pipe is written through,
    and so are the null device and a descriptor of this process (`/dev/stdout`); other devices and sockets are
    refused, because replacing or filling them harms the machine.
    Raises CannotRunError or OSError.
    """
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = _resolve(file)
    if named := _DESCRIPTOR.fullmatch(file):
        # Its file may be open to append, and what else was written to it must stay.
        number = os.dup(int(named[1] or sys.stdout.fileno()))
        with os.fdopen(number, "wb") as out:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                _check_kind(file, os.fstat(number))
            yield out
        return
    try:
        found = Path(file).stat()
    except FileNotFoundError:
        found = None
    if found is None or stat.S_ISREG(found.st_mode):
        with _replaced(target, mode) as out:
            yield out
        return
    _check_kind(file, found)
    # Without O_CREAT: what was a pipe a moment ago must not become a file with vectors.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), "wb") as out:
        _check_kind(file, os.fstat(out.fileno()))
        yield out


def _resolve(file: str) -> Path:
    if not file or "\0" in file or file.endswith("/"):
        raise CannotRunError(f"{file!r} is no name of a file")
    try:
        return Path(file).resolve()
    except (OSError, RuntimeError) as error:
        # Before Python 3.13 a link that leads to itself is a RuntimeError.
        raise CannotRunError(f"{file}: its symbolic links lead in a circle") from error


def _check_kind(file: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise CannotRunError(f"{file} is a folder: name a file in it")
    null_device = stat.S_ISCHR(found.st_mode) and found.st_rdev == Path(os.devnull).stat().st_rdev
    if not (null_device or stat.S_ISFIFO(found.st_mode)):
        raise CannotRunError(f"{file} is a device or a socket: name a file, or - for standard output")


@contextmanager
def _replaced(path: Path, mode: int) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name[:100]}-{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
