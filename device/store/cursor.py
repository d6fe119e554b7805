"""The position of a gallery in the history of its site."""

import json
import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True)
class SyncCursor:
    """A position: the gallery has everything up to `version` of the history `epoch`.

    It holds for one site and its sorted spaces. Without an epoch the gallery never synced.
    """

    site_id: str
    spaces: tuple[str, ...]
    epoch: str | None = None
    version: int = 0

    def belongs_to(self, site_id: str, spaces: tuple[str, ...]) -> bool:
        return (self.site_id, self.spaces) == (site_id, spaces)


@dataclass(frozen=True)
class SnapshotProgress:
    """The progress of a snapshot sync.

    It has its own cursor, and the head version of its first page.
    """

    cursor: SyncCursor
    head_version: int


def read_live(connection: sqlite3.Connection) -> SyncCursor | None:
    row = _read_cursor(connection, "live")
    return row[0] if row else None


def read_snapshot(connection: sqlite3.Connection) -> SnapshotProgress | None:
    row = _read_cursor(connection, "staged")
    return SnapshotProgress(row[0], row[1] or 0) if row else None


def _read_cursor(connection: sqlite3.Connection, name: str) -> tuple[SyncCursor, int | None] | None:
    row = connection.execute(
        "SELECT site_id, spaces, epoch, version, head_version FROM sync_cursors WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    site_id, spaces, epoch, version, head_version = row
    return SyncCursor(site_id, tuple(json.loads(spaces)), epoch, version), head_version


def write_live(connection: sqlite3.Connection, cursor: SyncCursor) -> None:
    _write_cursor(connection, "live", cursor, None)


def write_snapshot(connection: sqlite3.Connection, progress: SnapshotProgress) -> None:
    _write_cursor(connection, "staged", progress.cursor, progress.head_version)


def forget_live(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM sync_cursors WHERE name = 'live'")


def forget_snapshot(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM sync_cursors WHERE name = 'staged'")


def _write_cursor(connection: sqlite3.Connection, name: str, cursor: SyncCursor, head: int | None) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO sync_cursors (name, epoch, version, site_id, spaces, head_version) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (name, cursor.epoch, cursor.version, cursor.site_id, json.dumps(cursor.spaces), head),
    )
