"""Read an untrusted text file line by line, each within a size limit."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from broker_bridge.contract.errors import PAYLOAD_TOO_LARGE
from fleet.import_source import REQUEST_INVALID

MAX_LINE_LENGTH = 1024 * 1024
"""Characters: enough for the 64 vectors of an identity as text, and the most that the API accepts."""
TOO_LONG = f"the line has more than {MAX_LINE_LENGTH} characters"
# As long as a header's first words, which are ASCII; names further on may be of any letters.
_SAMPLE_BYTES = 16
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


@dataclass(frozen=True)
class Line:
    """Line `number` of a file, from 1, without its line end.

    A line that cannot be read has a `code` and a `problem`, and its text is empty.
    """

    number: int
    text: str = ""
    code: str = ""
    problem: str = ""


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Yield each line; a line ends with LF, CR LF or CR.

    The text is UTF-8, or UTF-16 or UTF-32 as spreadsheets and shells of Windows write it, with or without a
    byte order mark.
    """
    if not isinstance(file, io.BufferedReader):
        # A file in memory has no `peek`.
        file = io.BufferedReader(cast("io.RawIOBase", file))
    encoding = _encoding(file.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES])
    # UTF-8 marks each byte that it cannot read, the others replace it.
    errors, marks = ("surrogateescape", _ESCAPED) if encoding == "utf-8-sig" else ("replace", _REPLACED)
    text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    number = 0
    while line := text.readline(MAX_LINE_LENGTH + 1):
        number += 1
        if len(line) > MAX_LINE_LENGTH:
            while not line.endswith(("\n", "\r")) and (line := text.readline(MAX_LINE_LENGTH)):
                pass
            yield Line(number, code=PAYLOAD_TOO_LARGE, problem=TOO_LONG)
        elif not line.isascii() and any(mark in marks for mark in line):
            name = "UTF-8" if marks is _ESCAPED else encoding[:6].upper()
            yield Line(number, code=REQUEST_INVALID, problem=f"the line is not {name}: save it as UTF-8")
        else:
            yield Line(number, line.rstrip("\r\n"))


def count_lines(path: Path) -> int:
    """Return the number of lines of a file; raises OSError."""
    with path.open("rb") as file:
        return sum(1 for _ in read_lines(file))


_ESCAPED = frozenset(map(chr, range(0xDC80, 0xDD00)))
_REPLACED = frozenset("\ufffd")


def _encoding(sample: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return encoding
    # Every second byte of ASCII in UTF-16 is zero.
    even, odd = sample[0::2], sample[1::2]
    if odd and odd.count(0) * 2 > len(odd) and even.count(0) * 4 < len(even):
        return "utf-16-le"
    if odd and even.count(0) * 2 > len(even) and odd.count(0) * 4 < len(odd):
        return "utf-16-be"
    return "utf-8-sig"
