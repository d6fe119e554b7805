"""`BufferedEventRows`: events in memory while the disk takes none.

What is in memory is lost if the program ends. It moves to the disk as soon as that works again.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from broker_bridge.contract.messages import Rejection
from device.store.connection import StoreConnection, StoreError

from .event_rows import ROW_BYTES, EventRow, EventRows, RejectedEvent

_log = logging.getLogger(__name__)

MEMORY_BYTES = 32 * 1024 * 1024
"""The default limit of the events in memory."""
_RETRY_SECONDS = 2.0


class BufferedEventRows:
    """`EventRows` whose methods about new, settled and rejected events never fail.

    While the disk fails, new events are kept in memory, images dropped first and oldest events last beyond
    `max_bytes`; settled and rejected ones are noted and never sent again. Every method is for any thread.
    """

    def __init__(
        self,
        connection: StoreConnection,
        rows: EventRows,
        *,
        clock: Callable[[], float],
        max_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._connection = connection
        self._rows = rows
        self._clock = clock
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._memory: dict[str, EventRow] = {}
        self._memory_bytes = 0
        self._settled: dict[str, None] = {}
        self._rejections: dict[str, Rejection] = {}
        self._dropped: Counter[str] = Counter()
        self._last_numbers: dict[str, int] = {}
        self._retry_at = float("-inf")
        self.failure: str | None = None
        """Why the disk fails, as a sentence; None while it works."""

    def add(self, row: EventRow) -> None:
        """Store a new event on disk, or in memory while the disk fails.

        A repeat of a stored id changes nothing.
        """
        with self._lock:
            # What waits goes first, so that it is not dropped for this one.
            self.write_down()
            if row.event_id not in self._memory:
                self._keep(row)
                self.write_down()

    def write_down(self) -> None:
        """Bring to the disk what it has not taken; after a failure every two seconds."""
        with self._lock:
            pending = self._memory or self._settled or self._rejections or self._dropped
            if not (pending or self.failure) or (self.failure and self._clock() < self._retry_at):
                return
            try:
                self._write_all()
            except StoreError as error:
                self._note_failure(error)
            else:
                self._note_success()

    def _write_all(self) -> None:
        if self.failure:
            # Nothing may be pending after a failure to read.
            self._last_numbers["depth"] = self._rows.depth
        # Settled events first: they free the room that others need.
        if self._settled:
            self._delete_settled()
        if self._memory:
            self._rows.add(list(self._memory.values()))
            self._memory.clear()
            self._memory_bytes = 0
        if self._rejections:
            self._rows.reject(list(self._rejections.values()))
            self._rejections.clear()
        self._rows.count_dropped(self._dropped)
        self._dropped.clear()

    def _delete_settled(self) -> None:
        settled = list(self._settled)
        try:
            self._rows.delete(settled)
        except StoreError:
            # A deletion needs room in the log first; moving the log into the file gives it back.
            self._connection.truncate_log()
            self._rows.delete(settled)
        self._settled.clear()

    def _note_failure(self, error: StoreError) -> None:
        self._retry_at = self._clock() + _RETRY_SECONDS
        if self.failure is None:
            _log.error(
                "outbox cannot write to the disk; new events are kept in memory and sent from there, and "
                "those without a receipt are lost if the program ends error=%r",
                str(error),
            )
        self.failure = str(error)

    def _note_success(self) -> None:
        if self.failure is not None:
            self.failure = None
            _log.info("outbox writes to the disk again")

    def _keep(self, row: EventRow) -> None:
        self._memory[row.event_id] = row
        self._memory_bytes += _size(row)
        if self._memory_bytes <= self._max_bytes:
            return
        for event_id, kept in list(self._memory.items()):
            if kept.image is not None and self._memory_bytes > self._max_bytes:
                self._memory[event_id] = replace(kept, image=None)
                self._memory_bytes -= len(kept.image)
                self._dropped["images_dropped"] += 1
        for event_id in list(self._memory):
            if self._memory_bytes > self._max_bytes:
                self._forget(event_id)
                self._dropped["events_dropped"] += 1

    def _forget(self, event_id: str) -> bool:
        row = self._memory.pop(event_id, None)
        if row is None:
            return False
        self._memory_bytes -= _size(row)
        return True

    def by_ids(self, event_ids: Iterable[str]) -> list[EventRow]:
        """Return the events without a receipt of `event_ids`, in that order."""
        with self._lock:
            found = {row.event_id: row for row in self._read(lambda: self._rows.by_ids(event_ids))}
            found |= self._memory
            return [found[each] for each in event_ids if each in found and not self._is_answered(each)]

    def after(self, seq: int, limit: int) -> list[EventRow]:
        """Return at most `limit` events on disk behind `seq`, oldest first."""
        with self._lock:
            hidden = len(self._settled) + len(self._rejections)
            rows = self._read(lambda: self._rows.after(seq, limit + hidden))
            return [row for row in rows if not self._is_answered(row.event_id)][:limit]

    def in_memory(self) -> list[EventRow]:
        """Return the events that are not on disk, oldest first; their `seq` is 0."""
        with self._lock:
            return [row for row in self._memory.values() if not self._is_answered(row.event_id)]

    def _is_answered(self, event_id: str) -> bool:
        return event_id in self._settled or event_id in self._rejections

    def _read(self, rows: Callable[[], list[EventRow]]) -> list[EventRow]:
        """Return rows of the disk, none while it cannot be read."""
        try:
            return rows()
        except StoreError as error:
            self._note_failure(error)
            return []

    def settle(self, event_ids: Sequence[str]) -> int:
        """Delete the events that the bridge has stored, and return how many were waiting.

        Unknown ids and repeated receipts count nothing.
        """
        with self._lock:
            waiting = self._count_waiting(event_ids)
            for event_id in event_ids:
                if not self._forget(event_id):
                    self._settled[event_id] = None
            self.write_down()
            return waiting

    def reject(self, rejections: Iterable[Rejection]) -> int:
        """Move the events that the bridge rejected; return how many were waiting."""
        by_id = {rejection.event_id: rejection for rejection in rejections}
        with self._lock:
            waiting = self._count_waiting(by_id)
            self._rejections |= by_id
            self.write_down()
            return waiting

    def _count_waiting(self, event_ids: Iterable[str]) -> int:
        """Return how many distinct events of `event_ids` have had no receipt yet."""
        unanswered = {event_id for event_id in event_ids if not self._is_answered(event_id)}
        on_disk = unanswered - self._memory.keys()
        try:
            found = self._rows.count_of(on_disk)
        except StoreError as error:
            # A bridge answers what it was sent, so an unread id was most likely waiting.
            self._note_failure(error)
            found = len(on_disk)
        return len(unanswered) - len(on_disk) + found

    def rejected(self) -> list[RejectedEvent]:
        """Return the rejected events on disk, oldest first. Raises StoreError."""
        return self._rows.rejected()

    def requeue(self, event_ids: Iterable[str]) -> int:
        """Queue rejected events again. Raises StoreError."""
        return self._rows.requeue(event_ids)

    @property
    def last_seq(self) -> int:
        return self._rows.last_seq

    @property
    def depth(self) -> int:
        """The number of events without a receipt, on disk and in memory."""
        with self._lock:
            answered = self._settled.keys() | (self._rejections.keys() - self._memory.keys())
            self._last_numbers["answered"] = len(answered)
            hidden = self._number("answered", lambda: self._rows.count_of(answered))
            on_disk = self._number("depth", lambda: self._rows.depth)
            return max(0, on_disk - hidden) + len(self.in_memory())

    @property
    def memory_count(self) -> int:
        return len(self._memory)

    @property
    def rejected_count(self) -> int:
        with self._lock:
            return self._number("rejected", lambda: self._rows.rejected_count) + len(self._rejections)

    @property
    def events_dropped(self) -> int:
        with self._lock:
            on_disk = self._number("events", lambda: self._rows.events_dropped)
            return on_disk + self._dropped["events_dropped"]

    @property
    def images_dropped(self) -> int:
        with self._lock:
            on_disk = self._number("images", lambda: self._rows.images_dropped)
            return on_disk + self._dropped["images_dropped"]

    def _number(self, name: str, read: Callable[[], int]) -> int:
        """Return a number of the disk, the last known one while it cannot be read."""
        try:
            self._last_numbers[name] = read()
        except StoreError as error:
            self._note_failure(error)
        return self._last_numbers.get(name, 0)


def _size(row: EventRow) -> int:
    return len(row.body) + len(row.image or b"") + ROW_BYTES
