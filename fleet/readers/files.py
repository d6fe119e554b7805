"""Read untrusted files: follow no link, and read no more than a limit."""

import os
import stat
from pathlib import Path

from broker_bridge.common.pictures.picture_format import (
    HEAD_BYTES,
    PHOTO_FORMATS,
    picture_format,
    why_no_photo,
)
from fleet.errors import FileRefusedError
from fleet.import_source import PhotoFile

MAX_PHOTO_BYTES = 32 * 1024 * 1024


def read_bytes(file: Path, root: Path, most: int) -> bytes:
    """Return the bytes of a file inside `root`; raises FileRefusedError.

    `root` itself must contain no links.
    """
    data = read_head(file, root, most + 1)
    if len(data) > most:
        raise FileRefusedError(f"it has more than {most} bytes")
    return data


def read_head(file: Path, root: Path, most: int) -> bytes:
    """Return the first `most` bytes of a file in `root`; raises FileRefusedError."""
    try:
        if file.resolve(strict=True) != file or not file.is_relative_to(root):
            raise FileRefusedError(
                "it lies outside the source or behind a symbolic link, which is not followed"
            )
        # O_NONBLOCK: a pipe may have that name.
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise FileRefusedError("it is not a regular file")
            return opened.read(most)
    except (OSError, RuntimeError) as error:
        # Before Python 3.13 a link that leads to itself is a RuntimeError.
        reason = getattr(error, "strerror", None) or "a link in a circle"
        raise FileRefusedError(f"it cannot be read ({reason})") from error
    except ValueError as error:
        if isinstance(error, FileRefusedError):
            raise
        raise FileRefusedError("its name contains a NUL") from error


def read_photo(photo: PhotoFile) -> tuple[bytes, str]:
    """Return the bytes of a picture and their media type; raises FileRefusedError."""
    data = read_bytes(photo.file, photo.root, MAX_PHOTO_BYTES)
    reason = why_no_photo(data)
    if reason:
        raise FileRefusedError(reason)
    return data, PHOTO_FORMATS[picture_format(data) or ""]


def is_picture(file: Path, root: Path) -> bool:
    """Return whether a file begins like a picture; raises FileRefusedError."""
    return picture_format(read_head(file, root, HEAD_BYTES)) is not None
