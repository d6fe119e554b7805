"""Assemble the rows of a CSV file from its lines."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet.import_source import REQUEST_INVALID

from .lines import MAX_LINE_LENGTH, Line

_NO_TEXT = ",;|\t "
_MOST_LINES = 20
"""A quotation mark that is open for more lines was never closed."""


@dataclass(frozen=True)
class Row:
    """A row of `lines` lines, which begins at line `number`.

    One that cannot be read has a `code` and a `problem`.
    """

    number: int
    lines: int = 1
    cells: list[str] = field(default_factory=list)
    code: str = ""
    problem: str = ""


class RowReader:
    """The rows of `lines`.

    A cell in quotation marks may contain line breaks. A row that cannot be read is its first line, and the
    next row begins at the line below: a mark that is not closed costs one row.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._waiting: deque[Line] = deque()
        self.separator = ","

    def next_line_with_text(self) -> Line | None:
        """Return the next line with more than separators, None at the end."""
        while (line := self._next_line()) is not None:
            if line.problem or line.text.strip(_NO_TEXT):
                return line
        return None

    def header(self, first: Line, separator: str) -> Row:
        """Return the header that begins at `first`; lines below it are read again."""
        row, lines = self._row(first, separator, None)
        self._waiting.extendleft(reversed(lines[1:]))
        return row

    def skip_lines(self, count: int) -> None:
        """Move on by `count` lines."""
        for _ in range(count):
            self._next_line()

    def remaining(self, columns: int) -> Iterator[Row]:
        """Yield each row of at most `columns` cells with text."""
        while (line := self.next_line_with_text()) is not None:
            yield self._row(line, self.separator, columns)[0]

    def _next_line(self) -> Line | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def _row(self, first: Line, separator: str, columns: int | None) -> tuple[Row, list[Line]]:
        """Return the row that begins at `first`, and its lines."""
        lines = [first]
        if first.problem:
            return Row(first.number, code=first.code, problem=first.problem), lines
        while True:
            text = "\n".join(line.text for line in lines)
            try:
                cells = _cells(text, separator)
                if len(lines) == 1 or columns is None or not any(cell.strip() for cell in cells[columns:]):
                    return Row(first.number, len(lines), cells), lines
                problem = _NO_CSV
            except _UnclosedError:
                problem = _NO_CSV
                following = self._next_line() if len(lines) < _MOST_LINES else None
                if following is not None:
                    lines.append(following)
                    if not following.problem and len(text) + len(following.text) < MAX_LINE_LENGTH:
                        continue
            except ValueError as error:
                problem = str(error)
            self._waiting.extendleft(reversed(lines[1:]))
            return Row(first.number, code=REQUEST_INVALID, problem=problem), lines[:1]


class _UnclosedError(ValueError):
    """A quotation mark is open at the end of the text."""


_NO_CSV = "the row is no CSV: a quotation mark is not closed, or text follows it"


def _cells(text: str, separator: str) -> list[str]:
    """Split the text of a row into cells; raises ValueError with a sentence."""
    if "\0" in text:
        raise ValueError("the row contains a NUL")
    try:
        (cells,) = csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True)
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise _UnclosedError(_NO_CSV) from error
        if "field larger than" in str(error):
            raise ValueError("a cell of the row is too long") from error
        raise ValueError(_NO_CSV) from error
    return cells
