"""`Outbox`: events on disk, from before they are sent until the bridge's receipt."""

import base64
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from broker_bridge.contract.errors import PAYLOAD_TOO_LARGE, ContractError
from broker_bridge.contract.messages import Event, Rejection
from broker_bridge.contract.wire import MAX_UP_BYTES, decode_image, format_time

from .connection import StoreConnection
from .resend import RESEND, ResendSchedule

DEFAULT_MAX_BYTES = 512 * 1024 * 1024
EVENT_UNREADABLE = "event-unreadable"
_UNREADABLE = "the stored event is no longer readable: the disk has changed it"
_MAX_REJECTED = 1000
# The cost of a row besides its body and image, in page and indexes.
_ROW_BYTES = 200


@dataclass(frozen=True)
class OutboxEvent:
    """An event to send now; the wire `payload` of a repeat has `replayed: true`."""

    seq: int
    event_id: str
    event_type: str
    payload: bytes


@dataclass(frozen=True)
class RejectedEvent:
    """An event that the bridge rejected, with code and detail."""

    event_id: str
    code: str
    detail: str
    rejected_at: str


class Outbox:
    """Events in order of arrival within a budget of `max_bytes` on disk.

    Over the budget the images of the oldest events are dropped first, whole events last. Both are counted,
    and the counts survive a restart. `window` bounds the sent events without a receipt. `put` is for any
    thread, the methods about sending are for one. The connection must be open. Raises ValueError for a budget
    of less than four of the largest events.
    """

    def __init__(
        self,
        connection: StoreConnection,
        *,
        utc_now: Callable[[], datetime],
        source: random.Random,
        max_bytes: int = DEFAULT_MAX_BYTES,
        window: int = 200,
    ) -> None:
        if max_bytes < 4 * MAX_UP_BYTES:
            raise ValueError(f"an outbox needs at least {4 * MAX_UP_BYTES} bytes, got {max_bytes}")
        self._connection = connection
        self._utc_now = utc_now
        self._max_bytes = max_bytes
        self._schedule = ResendSchedule(window, source, RESEND)
        self._bytes = 0
        self._counted_at: int | None = None
        with connection.reading() as sql:
            self._last_of_earlier_run = sql.execute("SELECT COALESCE(MAX(seq), 0) FROM outbox").fetchone()[0]

    def put(self, event: Event, image: bytes | None = None) -> None:
        """Commit `event` and its `image` (JPEG) to disk.

        A repeat of a stored id changes nothing. Raises ContractError(`payload-too-large`) for an event
        that would make the broker disconnect, and StoreError if the disk fails.
        """
        if event.image is not None:
            image = image if image is not None else decode_image(event.image)
        stored = event.model_copy(update={"image": None, "metadata": {**event.metadata, "replayed": False}})
        size = len(_payload(stored, image, replayed=False))
        if size > MAX_UP_BYTES:
            raise ContractError(
                PAYLOAD_TOO_LARGE, f"the event has {size} bytes, expected at most {MAX_UP_BYTES}"
            )
        body = stored.to_json()
        needed = len(body) + len(image or b"") + _ROW_BYTES
        with self._changing() as (sql, change):
            change.append(-self._make_room(sql, needed))
            added = sql.execute(
                "INSERT INTO outbox (event_id, body, image, created_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (event_id) DO NOTHING",
                (event.event_id, body, image, format_time(self._utc_now())),
            ).rowcount
            change.append(needed * added)

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
                (_ROW_BYTES,),
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
            freed += row[1] + _ROW_BYTES
        return freed

    def due(self, now: float, limit: int) -> list[OutboxEvent]:
        """Return at most `limit` events to send at `now` (monotonic seconds).

        Repeats come before new events, each oldest first. An unreadable row moves to `rejected`.
        """
        repeats = self._schedule.due(now)[:limit]
        room = min(limit - len(repeats), self._schedule.room)
        columns = "SELECT seq, event_id, body, image FROM outbox"
        with self._connection.reading() as sql:
            rows = [
                row
                for event_id in repeats
                for row in sql.execute(f"{columns} WHERE event_id = ?", (event_id,))
            ]
            rows += sql.execute(
                f"{columns} WHERE seq > ? ORDER BY seq LIMIT ?", (self._schedule.sent_up_to, room)
            )
        for settled in set(repeats) - {row[1] for row in rows}:
            self._schedule.forget(settled)
        to_send: list[OutboxEvent] = []
        unreadable: list[Rejection] = []
        for row in rows:
            try:
                to_send.append(self._to_send(*row))
            except ValidationError:
                # A flipped bit passes SQLite's own check; in the queue it would block all later events.
                unreadable.append(Rejection(event_id=row[1], code=EVENT_UNREADABLE, detail=_UNREADABLE))
        if unreadable:
            self.reject(unreadable)
        return to_send

    def _to_send(self, seq: int, event_id: str, body: bytes, image: bytes | None) -> OutboxEvent:
        event = Event.model_validate_json(body)
        replayed = event_id in self._schedule or seq <= self._last_of_earlier_run
        return OutboxEvent(seq, event_id, event.event_type, _payload(event, image, replayed=replayed))

    def mark_sent(self, event: OutboxEvent, now: float) -> None:
        """Note that `event` was sent at `now`; a repeat is due in 2 s to 5 min."""
        self._schedule.mark_sent(event.event_id, event.seq, now)

    def postpone(self, event: OutboxEvent, now: float) -> None:
        """Delay an event while its last copy is still on its way to the broker."""
        self._schedule.postpone(event.event_id, now)

    def reconnected(self, now: float) -> None:
        """Make all events without a receipt due again, spread by their number."""
        self._schedule.reconnected(now, spread=min(2.0, 0.01 * len(self._schedule)))

    def next_due(self) -> float | None:
        """Return when the next repeat is due (monotonic seconds)."""
        return self._schedule.next_due()

    def settle(self, event_ids: Sequence[str]) -> None:
        """Delete the events that the bridge has stored; ignore unknown ids."""
        with self._changing() as (sql, change):
            change += [-_delete(sql, event_id) for event_id in event_ids]
        for event_id in event_ids:
            self._schedule.forget(event_id)

    def reject(self, rejections: Iterable[Rejection]) -> None:
        """Move events that the bridge rejected to `rejected`.

        `rejected` keeps the newest thousand. Events beyond that limit are counted as dropped.
        """
        rejected_at = format_time(self._utc_now())
        rejected = list(rejections)
        with self._changing() as (sql, change):
            for rejection in rejected:
                sql.execute(
                    "INSERT OR REPLACE INTO rejected (event_id, body, image, code, detail, rejected_at) "
                    "SELECT event_id, body, image, ?, ?, ? FROM outbox WHERE event_id = ?",
                    (rejection.code, rejection.detail, rejected_at, rejection.event_id),
                )
                change.append(-_delete(sql, rejection.event_id))
            pruned = sql.execute(
                "DELETE FROM rejected WHERE seq <= (SELECT MAX(seq) FROM rejected) - ?", (_MAX_REJECTED,)
            ).rowcount
            for _ in range(pruned):
                _count(sql, "events_dropped")
        for rejection in rejected:
            self._schedule.forget(rejection.event_id)

    def rejected(self) -> list[RejectedEvent]:
        """Return the rejected events, oldest first."""
        with self._connection.reading() as sql:
            rows = sql.execute(
                "SELECT event_id, code, detail, rejected_at FROM rejected ORDER BY seq"
            ).fetchall()
        return [RejectedEvent(*row) for row in rows]

    def requeue(self, event_ids: Iterable[str]) -> int:
        """Queue rejected events again; return how many were found."""
        found = 0
        with self._changing() as (sql, change):
            for event_id in event_ids:
                moved = sql.execute(
                    "INSERT INTO outbox (event_id, body, image, created_at) "
                    "SELECT event_id, body, image, ? FROM rejected WHERE event_id = ? ON CONFLICT DO NOTHING",
                    (format_time(self._utc_now()), event_id),
                ).rowcount
                size = sql.execute(
                    "DELETE FROM rejected WHERE event_id = ? "
                    "RETURNING LENGTH(body) + COALESCE(LENGTH(image), 0)",
                    (event_id,),
                ).fetchone()
                change.append((size[0] + _ROW_BYTES) * moved if size else 0)
                found += moved
        return found

    @property
    def depth(self) -> int:
        """The number of events without a receipt."""
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


def _payload(event: Event, image: bytes | None, *, replayed: bool) -> bytes:
    text = base64.b64encode(image).decode("ascii") if image is not None else None
    return event.model_copy(
        update={"image": text, "metadata": {**event.metadata, "replayed": replayed}}
    ).to_json()


def _delete(sql: sqlite3.Connection, event_id: str) -> int:
    """Delete an event and return its bytes of the budget."""
    row = sql.execute(
        "DELETE FROM outbox WHERE event_id = ? RETURNING LENGTH(body) + COALESCE(LENGTH(image), 0)",
        (event_id,),
    ).fetchone()
    return row[0] + _ROW_BYTES if row else 0


def _count(sql: sqlite3.Connection, name: str) -> None:
    sql.execute(
        "INSERT INTO counters (name, value) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
        (name,),
    )
