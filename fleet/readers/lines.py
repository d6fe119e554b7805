"""Read an untrusted file line by line, each within a size limit."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 1024 * 1024
"""Enough for the 64 vectors of an identity as text, and the most that the API accepts."""
TOO_LONG = f"the line has more than {MAX_LINE_BYTES} bytes"
_CHUNK = 1024 * 1024
_BOM = b"\xef\xbb\xbf"


def bounded_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield each line without its line end, and None for a line that is too long.

    A byte order mark is removed.
    """
    first = True
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                pass
            yield None
        else:
            yield (line.removeprefix(_BOM) if first else line).rstrip(b"\r\n")
        first = False


def count_lines(path: Path) -> int:
    """Return the number of lines of a file; raises OSError."""
    count = 0
    last = b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")
