"""Read import sources: a folder, a CSV file or JSON lines."""

import sys
from pathlib import Path

from fleet.errors import CannotRunError
from fleet.import_source import ImportSource

from .csv import read_csv
from .folder import read_folder
from .jsonl import read_jsonl
from .lines import count_lines
from .npy import NpySpaces

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
"""Endings of tables; spreadsheets save text with tabs as `.txt` or `.tsv`."""


def open_source(source: str, sites: list[str], spaces: NpySpaces) -> ImportSource:
    """Open `source`: a folder, a table, a `.jsonl` file, or `-` for standard input.

    Standard input carries JSON lines. Raises CannotRunError.
    """
    if source == "-":
        return ImportSource(read_jsonl(sys.stdin.buffer, "-", sites))
    path = Path(source)
    try:
        if path.is_dir():
            return read_folder(path, sites, spaces)
        if not path.is_file():
            raise CannotRunError(f"{source}: no such file or folder (for a pipe: -)")
        if path.suffix.lower() == ".jsonl":
            return ImportSource(read_jsonl(path.open("rb"), path.name, sites), count_lines(path))
        if path.suffix.lower() in TABLE_SUFFIXES:
            return ImportSource(read_csv(path, sites, spaces), max(0, count_lines(path) - 1))
    except OSError as error:
        raise CannotRunError(f"{source}: cannot be read ({error.strerror})") from error
    raise CannotRunError(f"{source}: a source must be a folder, a table (.csv, .tsv, .txt) or a .jsonl file")
