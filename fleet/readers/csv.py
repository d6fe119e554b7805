"""Read a CSV file: one identity a row, with paths of a photo and a `.npy` file."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker_bridge.contract.errors import FILE_INVALID
from fleet.errors import CannotRunError, FileRefusedError
from fleet.import_source import REQUEST_INVALID, ImportRefusal, PhotoFile, SourceEntry, read_user_id, to_entry

from .lines import read_lines
from .npy import NpySpaces, read_template
from .rows import Row, RowReader

COLUMNS = ("user_id", "display_name", "flag", "sites", "photo", "npy")
_COMPACT = {name.replace("_", ""): name for name in COLUMNS}
_SEPARATORS = ",;\t|"
# A program that knows no such line keeps it as a cell and fills the row with empty ones.
_SEPARATOR_LINE = re.compile(r'"?\s*sep\s*=\s*(\\t|tab|[^\w\s"]|\t)"?[,;|\s]*', re.IGNORECASE)
_LINE_BREAK = re.compile(r"\s*[\r\n\v\f\x85\u2028\u2029]+\s*")
_SITE_BREAK = re.compile(r"[;,|\s]+")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
"""Characters without width that copying from a document leaves at the ends of a cell."""


def read_csv(path: Path, sites: list[str], spaces: NpySpaces) -> Iterator[SourceEntry]:
    """Yield an entry for each row.

    Raises CannotRunError for a header with other columns. The form is that of spreadsheets: see
    `docs/import-export.md`.
    """
    with path.open("rb") as file:
        rows = RowReader(read_lines(file))
        columns, rows.separator = _header(path, rows)
        for row in rows.remaining(len(columns)):
            where = f"{path.name}:{row.number}"
            if row.problem:
                yield _refused(where, None, row.code, row.problem)
                continue
            try:
                cells = _named_cells(columns, row.cells)
            except ValueError as error:
                yield _refused(where, None, REQUEST_INVALID, str(error))
                continue
            if cells:
                yield _entry(where, cells, path.resolve().parent, sites, spaces)


def _header(path: Path, rows: RowReader) -> tuple[list[str], str]:
    """Return the column names, empty for a column without a name, and the separator."""
    line = rows.next_line_with_text()
    separators = _SEPARATORS
    if line is not None and (found := _SEPARATOR_LINE.fullmatch(line.text.strip(" "))):
        # Others follow: a table that was saved again has its old line and another separator.
        separators = ("\t" if found[1][-1] in "tTbB" else found[1]) + separators
        line = rows.next_line_with_text()
    if line is None:
        raise CannotRunError(f"{path}: its first line must be the header; columns are {', '.join(COLUMNS)}")
    headers = [(rows.header(line, separator), separator) for separator in separators]
    # The separator that finds the most of our columns, the first of equals.
    row, separator = max(headers, key=lambda header: len(set(_columns(header[0])) & set(COLUMNS)))
    columns = _columns(row)
    named = [name for name in columns if name]
    unknown = [name for name in named if name not in COLUMNS]
    if row.problem or unknown or "user_id" not in columns or len(set(named)) < len(named):
        problem = f"there is no column {unknown[0][:40]!a}" if unknown else "it names user_id, and none twice"
        problem = f"line {row.number} is the header: {row.problem or problem}"
        raise CannotRunError(
            f"{path}: its first line must be the header; {problem}; columns are {', '.join(COLUMNS)}"
        )
    rows.skip_lines(row.lines - 1)
    return columns, separator


def _columns(row: Row) -> list[str]:
    """Return the names of a header; case, blanks, `_` and `-` make no difference."""
    names = [_clean(cell) for cell in row.cells]
    return [_COMPACT.get(re.sub(r"[\s_.-]+", "", name).casefold(), name) for name in names]


def _named_cells(columns: list[str], cells: list[str]) -> dict[str, str]:
    """Return the cells with a value by column; raises ValueError with a sentence."""
    values = [_clean(cell) for cell in cells]
    for number, value in enumerate(values, start=1):
        if value and number > len(columns):
            raise ValueError(f"the row has {len(values)} cells, the header {len(columns)}")
        if value and not columns[number - 1]:
            raise ValueError(f"cell {number} has a value, but column {number} has no name in the header")
    return {name: value for name, value in zip(columns, values, strict=False) if value}


def _clean(cell: str) -> str:
    return _LINE_BREAK.sub(" ", cell.strip().strip(_INVISIBLE).strip())


def _entry(where: str, row: dict[str, str], folder: Path, sites: list[str], spaces: NpySpaces) -> SourceEntry:
    document: dict[str, Any] = {name: row[name] for name in COLUMNS[:3] if name in row}
    if "sites" in row:
        document["sites"] = [site for site in _SITE_BREAK.split(row["sites"]) if site]
    if "npy" in row:
        try:
            document["templates"] = [read_template(_inside(folder, row["npy"]), folder, spaces)]
        except FileRefusedError as error:
            user_id = read_user_id(row.get("user_id"))
            return _refused(where, user_id, FILE_INVALID, f"npy: {error}")
    photos = (PhotoFile(_inside(folder, row["photo"]), folder),) if "photo" in row else ()
    return to_entry(where, document, sites, photos)


def _inside(folder: Path, relative: str) -> Path:
    """Return the path of a cell, `..` resolved.

    The reader of the file checks that it lies in `folder`. Windows separates folders by a backslash.
    """
    return Path(os.path.normpath(folder / relative.replace("\\", "/")))


def _refused(where: str, user_id: str | None, code: str, detail: str) -> SourceEntry:
    return SourceEntry(refusals=(ImportRefusal(where, user_id, code, detail),))
