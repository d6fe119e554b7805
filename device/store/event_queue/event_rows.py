"""`EventRows`: the stored events of device.db, within a budget of bytes."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from broker_bridge.contract.messages import Rejection
from broker_bridge.contract.wire import format_time
from device.store.connection import StoreConnection
from device.timing.device_clock import Stamp

_MAX_REJECTED = 1000
# The cost of a row besides its body and image, in page and indexes.
ROW_BYTES = 200
_UNKNOWN = datetime(1970, 1, 1, tzinfo=timezone.utc)
_COLUMNS = "SELECT seq, event_id, body, image, created_at, boot_id, boot_ms FROM outbox"


@dataclass(frozen=True)
class EventRow:
    """A row of `outbox`: the event's JSON without its image (JPEG), and when it came.

    `seq` is 0 before the row is on disk.
    """

    seq: int
    event_id: str
    body: bytes
    image: bytes | None
    stamp: Stamp


@dataclass(frozen=True)
class RejectedEvent:
    """An event that the bridge rejected, with code and detail."""

    event_id: str
    code: str
    detail: str
    rejected_at: str


class EventRows:
    """The stored events in order of arrival within `max_bytes`.

    Over the budget the images of the oldest events are dropped first, whole events last. Both are counted,
    and the counts survive a restart. Every method is for any thread and raises StoreError if the disk fails.
    """

    def __init__(
        self, connection: StoreConnection, *, utc_now: Callable[[], datetime], max_bytes: int
    ) -> None:
        self._connection = connection
        self._utc_now = utc_now
        self._max_bytes = max_bytes
        self._bytes = 0
        self._counted_at: int | None = None

    def add(self, rows: Sequence[EventRow]) -> None:
        """Commit new rows, which get their `seq`; a repeat of a stored id changes nothing."""
        with self._changing() as (sql, change):
            for row in rows:
                needed = len(row.body) + len(row.image or b"") + ROW_BYTES
                change.append(-self._make_room(sql, needed + sum(change)))
                stamp = row.stamp
                added = sql.execute(
                    "INSERT INTO outbox (event_id, body, image, created_at, boot_id, boot_ms) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING",
                    (
                        row.event_id,
                        row.body,
                        row.image,
                        format_time(stamp.wall),
                        stamp.boot_id,
                        stamp.boot_ms,
                    ),
                ).rowcount
                change.append(needed * added)

    def count_dropped(self, numbers: Mapping[str, int]) -> None:
        """Add to the counters of dropped events and images."""
        if any(numbers.values()):
            with self._connection.transaction() as sql:
                for name, number in numbers.items():
                    _count(sql, name, number)

    def by_ids(self, event_ids: Iterable[str]) -> list[EventRow]:
        """Return the rows of `event_ids`, in that order; unknown ids are left out."""
        with self._connection.reading() as sql:
            return [
                _to_row(*row)
                for event_id in event_ids
                for row in sql.execute(f"{_COLUMNS} WHERE event_id = ?", (event_id,))
            ]

    def count_of(self, event_ids: Collection[str]) -> int:
        """Return how many of `event_ids` are stored."""
        with self._connection.reading() as sql:
            found = "SELECT COUNT(*) FROM outbox WHERE event_id = ?"
            return sum(sql.execute(found, (event_id,)).fetchone()[0] for event_id in event_ids)

    def after(self, seq: int, limit: int) -> list[EventRow]:
        """Return at most `limit` rows behind `seq`, oldest first."""
        with self._connection.reading() as sql:
            rows = sql.execute(f"{_COLUMNS} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
            return [_to_row(*row) for row in rows]

    def delete(self, event_ids: Sequence[str]) -> None:
        """Delete the rows of `event_ids`; ignore unknown ids."""
        with self._changing() as (sql, change):
            change += [-_delete(sql, event_id) for event_id in event_ids]

    def reject(self, rejections: Iterable[Rejection]) -> None:
        """Move rows to `rejected`, which keeps the newest thousand.

        Events beyond that limit are counted as dropped.
        """
        rejected_at = format_time(self._utc_now())
        with self._changing() as (sql, change):
            for rejection in rejections:
                sql.execute(
                    "INSERT OR REPLACE INTO rejected (event_id, body, image, code, detail, rejected_at, "
                    "created_at, boot_id, boot_ms) SELECT event_id, body, image, ?, ?, ?, created_at, "
                    "boot_id, boot_ms FROM outbox WHERE event_id = ?",
                    (rejection.code, rejection.detail, rejected_at, rejection.event_id),
                )
                change.append(-_delete(sql, rejection.event_id))
            pruned = sql.execute(
                "DELETE FROM rejected WHERE seq <= (SELECT MAX(seq) FROM rejected) - ?", (_MAX_REJECTED,)
            ).rowcount
            for _ in range(pruned):
                _count(sql, "events_dropped")

    def rejected(self) -> list[RejectedEvent]:
        """Return the rejected events, oldest first."""
        with self._connection.reading() as sql:
            rows = sql.execute(
                "SELECT event_id, code, detail, rejected_at FROM rejected ORDER BY seq"
            ).fetchall()
        return [RejectedEvent(*row) for row in rows]

    def requeue(self, event_ids: Iterable[str]) -> int:
        """Move rejected events back to `outbox`; return how many were found."""
        found = 0
        with self._changing() as (sql, change):
            for event_id in event_ids:
                moved = sql.execute(
                    "INSERT INTO outbox (event_id, body, image, created_at, boot_id, boot_ms) "
                    "SELECT event_id, body, image, COALESCE(created_at, ?), boot_id, boot_ms FROM rejected "
                    "WHERE event_id = ? ON CONFLICT DO NOTHING",
                    (format_time(self._utc_now()), event_id),
                ).rowcount
                size = sql.execute(
                    "DELETE FROM rejected WHERE event_id = ? "
                    "RETURNING LENGTH(body) + COALESCE(LENGTH(image), 0)",
                    (event_id,),
                ).fetchone()
                change.append((size[0] + ROW_BYTES) * moved if size else 0)
                found += moved
        return found

    @property
    def last_seq(self) -> int:
        return self._number("SELECT COALESCE(MAX(seq), 0) FROM outbox")

    @property
    def depth(self) -> int:
        return self._number("SELECT COUNT(*) FROM outbox")

    @property
    def rejected_count(self) -> int:
        return self._number("SELECT COUNT(*) FROM rejected")

    @property
    def events_dropped(self) -> int:
        """The number of whole events dropped for the budget, over all runs."""
        return self._number("SELECT COALESCE(SUM(value), 0) FROM counters WHERE name = 'events_dropped'")

    @property
    def images_dropped(self) -> int:
        """The number of images dropped for the budget, over all runs."""
        return self._number("SELECT COALESCE(SUM(value), 0) FROM counters WHERE name = 'images_dropped'")

    def _number(self, query: str) -> int:
        with self._connection.reading() as sql:
            return int(sql.execute(query).fetchone()[0])

    @contextmanager
    def _changing(self) -> Iterator[tuple[sqlite3.Connection, list[int]]]:
        """Yield a transaction, and a list for the bytes that it adds (below 0: frees).

        The bytes count after the commit, so that a failed transaction costs nothing.
        """
        change: list[int] = []
        # Locked until the change is counted: another thread may be next.
        with self._connection.reading():
            with self._connection.transaction() as sql:
                self._recount_bytes(sql)
                yield sql, change
            self._bytes += sum(change)

    def _recount_bytes(self, sql: sqlite3.Connection) -> None:
        """Count the bytes again if another process, such as a requeue, wrote the file."""
        version: int = sql.execute("PRAGMA data_version").fetchone()[0]
        if version != self._counted_at:
            self._counted_at = version
            (self._bytes,) = sql.execute(
                "SELECT COALESCE(SUM(LENGTH(body) + COALESCE(LENGTH(image), 0) + ?), 0) FROM outbox",
                (ROW_BYTES,),
            ).fetchone()

    def _make_room(self, sql: sqlite3.Connection, needed: int) -> int:
        """Free `needed` bytes: drop images, then events, oldest first; return the sum."""
        freed = 0
        while self._bytes - freed + needed > self._max_bytes:
            row = sql.execute(
                "SELECT seq, LENGTH(image) FROM outbox WHERE image IS NOT NULL ORDER BY seq LIMIT 1"
            ).fetchone()
            if row is None:
                break
            sql.execute("UPDATE outbox SET image = NULL WHERE seq = ?", (row[0],))
            _count(sql, "images_dropped")
            freed += row[1]
        while self._bytes - freed + needed > self._max_bytes:
            row = sql.execute("SELECT seq, LENGTH(body) FROM outbox ORDER BY seq LIMIT 1").fetchone()
            if row is None:
                break
            sql.execute("DELETE FROM outbox WHERE seq = ?", (row[0],))
            _count(sql, "events_dropped")
            freed += row[1] + ROW_BYTES
        return freed


def _to_row(  # noqa: PLR0917  # the columns of a row
    seq: int,
    event_id: str,
    body: bytes,
    image: bytes | None,
    created_at: str,
    boot_id: str | None,
    boot_ms: int | None,
) -> EventRow:
    try:
        wall = datetime.fromisoformat(created_at.replace("Z", "+00:00"))
    except ValueError:
        # A flipped bit passes SQLite's own check; the event's own time still counts.
        wall = _UNKNOWN
    return EventRow(seq, event_id, body, image, Stamp(wall, boot_id, boot_ms))


def _delete(sql: sqlite3.Connection, event_id: str) -> int:
    """Delete an event and return its bytes of the budget."""
    row = sql.execute(
        "DELETE FROM outbox WHERE event_id = ? RETURNING LENGTH(body) + COALESCE(LENGTH(image), 0)",
        (event_id,),
    ).fetchone()
    return row[0] + ROW_BYTES if row else 0


def _count(sql: sqlite3.Connection, name: str, number: int = 1) -> None:
    sql.execute(
        "INSERT INTO counters (name, value) VALUES (?1, ?2) "
        "ON CONFLICT (name) DO UPDATE SET value = value + ?2",
        (name, number),
    )
