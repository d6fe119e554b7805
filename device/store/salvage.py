"""Read the rows of a damaged database that can still be read."""

import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .connection import StoreError

_log = logging.getLogger(__name__)

# The gallery is left out: it syncs again.
_TABLES = {
    "outbox": "seq", "rejected": "seq", "registrations": "request_id", "counters": "name", "boots": "boot_id",
    "npy_files": "user_id", "device_config": "key",
}  # fmt: skip
_HEADER_BYTES = 100
_MAX_LOOKUPS = 100_000


def salvage(damaged: Path, target: sqlite3.Connection, *, merge: bool = False) -> tuple[dict[str, int], bool]:
    """Copy readable rows from the file `damaged` into `target`.

    With `merge` the rows get new numbers, since `target` has rows of its own. Returns the number of rows by
    table, and whether every table could be read to its end. Raises StoreError or OSError if the disk has no
    room for them.
    """
    copied = dict.fromkeys(_TABLES, 0)
    complete = True
    try:
        with _readable(damaged) as file, closing(sqlite3.connect(file, isolation_level=None)) as source:
            # A schema with one unreadable entry still gives the tables of the others.
            source.execute("PRAGMA writable_schema = ON")
            for table, key in _TABLES.items():
                copied[table], is_whole = _copy_table(source, target, table, key, merge=merge)
                complete = complete and is_whole
    except sqlite3.Error as error:
        _log.warning("store: the damaged file cannot be read error=%r", str(error))
        complete = False
    return copied, complete


def _copy_table(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, key: str, *, merge: bool
) -> tuple[int, bool]:
    try:
        present = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
    except sqlite3.Error:
        return 0, False
    columns = [row[1] for row in target.execute(f"PRAGMA table_info({table})") if row[1] in present]
    if key not in columns:
        return 0, False
    values = ["NULL" if merge and name == "seq" else f"?{n}" for n, name in enumerate(columns, 1)]
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)})"  # noqa: S608
    reader = _TableReader(source, table, key, columns)
    copied = 0
    for row in reader.rows():
        try:
            copied += max(0, target.execute(insert, row).rowcount)
        except sqlite3.IntegrityError:
            # A flipped bit may break a constraint of the table.
            reader.is_whole = False
        except sqlite3.Error as error:
            raise StoreError(f"rows of {table} cannot be saved: {error}") from error
    return copied, reader.is_whole


class _TableReader:
    """Reads a table from both ends and by single rows in between."""

    def __init__(self, source: sqlite3.Connection, table: str, key: str, columns: list[str]) -> None:
        self._source = source
        self._select = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608
        self._key = key
        self._position = columns.index(key)
        self.is_whole = True

    def rows(self) -> Iterator[tuple[object, ...]]:
        last = first = None
        for row in self._scan(f"ORDER BY {self._key}"):
            last = row[self._position]
            yield row
        if self.is_whole:
            return
        for row in self._scan(f"ORDER BY {self._key} DESC"):
            first = row[self._position]
            yield row
        if self._key == "seq":
            low = last if isinstance(last, int) else 0
            high = first if isinstance(first, int) else low + _MAX_LOOKUPS
            for number in range(low + 1, min(high, low + _MAX_LOOKUPS)):
                yield from self._scan("WHERE seq = ?", number)

    def _scan(self, clause: str, *values: object) -> Iterator[tuple[object, ...]]:
        try:
            yield from self._source.execute(f"{self._select} {clause}", values)
        except sqlite3.Error:
            self.is_whole = False


@contextmanager
def _readable(damaged: Path) -> Iterator[Path]:
    """Yield the file, or a copy with a fresh header if its own is damaged."""
    with damaged.open("rb") as file:
        is_sound = file.read(16) == b"SQLite format 3\0"
    if is_sound or damaged.stat().st_size <= _HEADER_BYTES:
        yield damaged
        return
    with tempfile.TemporaryDirectory(dir=damaged.parent) as folder:
        copy = Path(folder) / damaged.name
        shutil.copyfile(damaged, copy)
        fresh = Path(folder) / "fresh.db"
        with closing(sqlite3.connect(fresh)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA user_version = 1")
        # Without the size in pages SQLite takes the size of the file.
        header = bytearray(fresh.read_bytes()[:_HEADER_BYTES])
        header[28:32] = bytes(4)
        with copy.open("r+b") as file:
            file.write(header)
        yield copy
