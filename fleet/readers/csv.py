"""Read a CSV file: one identity a row, with paths of a photo and a `.npy` file."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker_bridge.contract.errors import FILE_INVALID, PAYLOAD_TOO_LARGE
from fleet.errors import CannotRunError, FileRefusedError
from fleet.import_source import REQUEST_INVALID, ImportRefusal, PhotoFile, SourceEntry, read_user_id, to_entry

from .lines import TOO_LONG, bounded_lines
from .npy import NpySpaces, read_template

COLUMNS = ("user_id", "display_name", "flag", "sites", "photo", "npy")


def read_csv(path: Path, sites: list[str], spaces: NpySpaces) -> Iterator[SourceEntry]:
    """Yield an entry for each row.

    Raises CannotRunError for a header with other columns.
    The separator is a comma or a semicolon, the encoding UTF-8 with or without a byte order mark. A row is
    one line: cells have no line breaks. `COLUMNS` are the allowed columns.
    """
    with path.open("rb") as file:
        lines = bounded_lines(file)
        columns, separator = _header(path, next(lines, None))
        for number, line in enumerate(lines, start=2):
            where = f"{path.name}:{number}"
            if line is None:
                yield _refused(where, None, PAYLOAD_TOO_LARGE, TOO_LONG)
                continue
            if not line.strip():
                continue
            try:
                row = dict(zip(columns, _cells(line, separator, len(columns)), strict=True))
                yield _entry(where, row, path.resolve().parent, sites, spaces)
            except ValueError as error:
                yield _refused(where, None, REQUEST_INVALID, str(error))


def _header(path: Path, line: bytes | None) -> tuple[list[str], str]:
    separator = ";" if line is not None and b";" in line else ","
    try:
        columns = [name.strip() for name in _cells(line or b"", separator)]
    except ValueError as error:
        raise CannotRunError(f"{path}: its first line is no header: {error}") from error
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or "user_id" not in columns or len(set(columns)) < len(columns):
        problem = f"there is no column {unknown[0][:40]!a}" if unknown else "it names user_id, and none twice"
        raise CannotRunError(
            f"{path}: its first line is the header: {problem}; columns are {', '.join(COLUMNS)}"
        )
    return columns, separator


def _cells(line: bytes, separator: str, expected: int | None = None) -> list[str]:
    """Split a line into cells; raises ValueError with a sentence."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError("the row is not UTF-8: save the table as CSV UTF-8") from error
    if "\0" in text:
        raise ValueError("the row contains a NUL")
    try:
        (cells,) = csv.reader([text], delimiter=separator, strict=True) if text else [[""]]
    except csv.Error as error:
        raise ValueError(
            "the row is no CSV: a quotation mark is not closed, or a cell is too long"
        ) from error
    if expected is not None and len(cells) != expected:
        raise ValueError(f"the row has {len(cells)} cells, the header {expected}")
    return cells


def _entry(where: str, row: dict[str, str], folder: Path, sites: list[str], spaces: NpySpaces) -> SourceEntry:
    row = {name: cell.strip() for name, cell in row.items() if cell.strip()}
    document: dict[str, Any] = {name: row[name] for name in COLUMNS[:3] if name in row}
    if "sites" in row:
        document["sites"] = [site.strip() for site in row["sites"].split(";") if site.strip()]
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

    The reader of the file checks that it lies in `folder`.
    """
    return Path(os.path.normpath(folder / relative))


def _refused(where: str, user_id: str | None, code: str, detail: str) -> SourceEntry:
    return SourceEntry(refusals=(ImportRefusal(where, user_id, code, detail),))
