"""Lines of a file that may be anything: never more than one of them in memory, and none past a size."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 1024 * 1024
"""A person has at most 64 vectors; as text, these have room in it, and the API takes no more at once."""
TOO_LONG = f"the line has more than {MAX_LINE_BYTES} bytes"
_CHUNK = 1024 * 1024
_BOM = b"\xef\xbb\xbf"


def bounded_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Each line without its end and the first without a byte order mark; None for one that is too long."""
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
    """How many lines a file has, to know how much is to be done; raises OSError."""
    count = 0
    last = b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")
