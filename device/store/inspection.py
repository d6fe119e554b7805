"""Read a device's database without writing, also while the device runs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from broker_bridge.contract.embeddings import Vector

from . import staging
from .connection import BUSY_TIMEOUT_MS, StoreError, migrations


class StoreInspection:
    """The contents of one database.

    Methods raise sqlite3.Error, which `inspect_store` translates.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def damage(self) -> str | None:
        """Return the first finding of SQLite's `quick_check`, or None."""
        finding: str = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        return None if finding == "ok" else finding

    def schemas(self) -> tuple[int, int]:
        """Return the schema number of the file and the newest one of this software."""
        (current,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(current), migrations()[-1][0]

    def outbox_depth(self) -> int:
        return self._count("SELECT count(*) FROM outbox")

    def rejected_count(self) -> int:
        return self._count("SELECT count(*) FROM rejected")

    def config(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM device_config WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def load_gallery(self, space: str) -> tuple[list[str], Vector]:
        """Return user ids and vectors float32[n, d] of all templates of `space`.

        Row i is the vector of the user id i.
        """
        return staging.load_gallery(self._connection, space)

    def _count(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


@contextmanager
def inspect_store(path: Path) -> Iterator[StoreInspection]:
    """Open the database at `path`, which must exist.

    Raises StoreError with one sentence.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            yield StoreInspection(connection)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
