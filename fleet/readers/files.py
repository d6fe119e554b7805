"""Read untrusted files: follow no link, and read no more than a limit."""

import os
import stat
from pathlib import Path

from fleet.errors import FileRefusedError
from fleet.import_source import PhotoFile

PICTURES = frozenset({".jpg", ".jpeg", ".png"})
MAX_PHOTO_BYTES = 32 * 1024 * 1024
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"


def read_bytes(file: Path, root: Path, most: int) -> bytes:
    """Return the bytes of a file inside `root`; raises FileRefusedError.

    `root` itself must contain no links.
    """
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
            data = opened.read(most + 1)
    except (OSError, RuntimeError) as error:
        # Before Python 3.13 a link that leads to itself is a RuntimeError.
        reason = getattr(error, "strerror", None) or "a link in a circle"
        raise FileRefusedError(f"it cannot be read ({reason})") from error
    except ValueError as error:
        if isinstance(error, FileRefusedError):
            raise
        raise FileRefusedError("its name contains a NUL") from error
    if len(data) > most:
        raise FileRefusedError(f"it has more than {most} bytes")
    return data


def read_photo(photo: PhotoFile) -> tuple[bytes, str]:
    """Return the bytes of a picture and their media type; raises FileRefusedError."""
    data = read_bytes(photo.file, photo.root, MAX_PHOTO_BYTES)
    if data.startswith(_JPEG):
        return data, "image/jpeg"
    if data.startswith(_PNG):
        return data, "image/png"
    raise FileRefusedError("it is neither JPEG nor PNG")
