"""`Outbox`: events on disk, from before they are sent until the bridge's receipt."""

import base64
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from pydantic import ValidationError

from broker_bridge.contract.errors import PAYLOAD_TOO_LARGE, STORE_FAILED, ContractError
from broker_bridge.contract.messages import Event, Rejection, WireError
from broker_bridge.contract.wire import MAX_UP_BYTES, decode_image
from device.timing.device_clock import Stamp
from device.timing.event_dating import EventDating

from .connection import StoreConnection
from .event_queue.buffered_rows import MEMORY_BYTES, BufferedEventRows
from .event_queue.event_rows import EventRow, EventRows, RejectedEvent
from .event_queue.resend import RESEND, ResendSchedule

DEFAULT_MAX_BYTES = 512 * 1024 * 1024
EVENT_UNREADABLE = "event-unreadable"
_UNREADABLE = "the stored event is no longer readable: the disk has changed it"


@dataclass(frozen=True)
class OutboxEvent:
    """An event to send now; the wire `payload` of a repeat has `replayed: true`."""

    seq: int
    event_id: str
    event_type: str
    payload: bytes


class Outbox:
    """Events in order of arrival, with the times at which they are sent again.

    `EventRows` keeps them within a budget of `max_bytes` on disk, `BufferedEventRows` within `memory_bytes`
    while the disk fails. `window` bounds the sent events without a
    receipt. `dating` dates each event when it is sent. `put` is for any thread, the methods about sending are
    for one. The connection must be open. Raises ValueError for a budget of less than four of the
    largest events.
    """

    def __init__(
        self,
        connection: StoreConnection,
        *,
        utc_now: Callable[[], datetime],
        source: random.Random,
        max_bytes: int = DEFAULT_MAX_BYTES,
        window: int = 200,
        dating: EventDating | None = None,
        clock: Callable[[], float] = time.monotonic,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if max_bytes < 4 * MAX_UP_BYTES:
            raise ValueError(f"an outbox needs at least {4 * MAX_UP_BYTES} bytes, got {max_bytes}")
        self._utc_now = utc_now
        self._dating = dating
        rows = EventRows(connection, utc_now=utc_now, max_bytes=max_bytes)
        self._rows = BufferedEventRows(connection, rows, clock=clock, max_bytes=memory_bytes)
        self._schedule = ResendSchedule(window, source, RESEND)
        self._last_of_earlier_run = self._rows.last_seq

    def put(self, event: Event, image: bytes | None = None) -> None:
        """Commit `event` and its `image` (JPEG) to disk.

        While the disk fails they stay in memory. A repeat of a stored id changes nothing. Raises
        ContractError(`payload-too-large`) for an event that would make the broker disconnect.
        """
        if event.image is not None:
            image = image if image is not None else decode_image(event.image)
        stored = event.model_copy(update={"image": None, "metadata": {**event.metadata, "replayed": False}})
        size = len(_payload(stored, image, replayed=False))
        if size > MAX_UP_BYTES:
            raise ContractError(
                PAYLOAD_TOO_LARGE, f"the event has {size} bytes, expected at most {MAX_UP_BYTES}"
            )
        stamp = self._dating.clock.stamp() if self._dating else Stamp(self._utc_now())
        self._rows.add(EventRow(0, event.event_id, stored.to_json(), image, stamp))

    def due(self, now: float, limit: int) -> list[OutboxEvent]:
        """Return at most `limit` events to send at `now` (monotonic seconds).

        Repeats come before new events, each oldest first. An unreadable row moves to `rejected`.
        """
        self._rows.write_down()
        repeats = self._schedule.due(now)[:limit]
        room = min(limit - len(repeats), self._schedule.room)
        rows = self._rows.by_ids(repeats)
        for settled in set(repeats) - {row.event_id for row in rows}:
            self._schedule.forget(settled)
        rows += self._unsent(room)
        to_send: list[OutboxEvent] = []
        unreadable: list[Rejection] = []
        for row in rows:
            try:
                to_send.append(self._to_send(row))
            except ValidationError:
                # A flipped bit passes SQLite's own check; in the queue it would block all later events.
                unreadable.append(Rejection(event_id=row.event_id, code=EVENT_UNREADABLE, detail=_UNREADABLE))
        if unreadable:
            self.reject(unreadable)
        return to_send

    def _unsent(self, limit: int) -> list[EventRow]:
        """Return at most `limit` events that were not sent in this run."""
        rows = self._rows.after(self._schedule.sent_up_to, limit)
        # Sent from memory before they came to the disk: passed over as soon as no other row is before them.
        sent = list(takewhile(lambda row: row.event_id in self._schedule, rows))
        if sent:
            self._schedule.sent_up_to = sent[-1].seq
        rows += self._rows.in_memory()
        return [row for row in rows if row.event_id not in self._schedule][:limit]

    def _to_send(self, row: EventRow) -> OutboxEvent:
        event = Event.model_validate_json(row.body)
        if self._dating is not None:
            event = self._dating.date(event, row.stamp)
        replayed = row.event_id in self._schedule or 0 < row.seq <= self._last_of_earlier_run
        payload = _payload(event, row.image, replayed=replayed)
        if len(payload) > MAX_UP_BYTES:
            # The date does not fit beside the image; an event without its image is worth more than none.
            payload = _payload(event, None, replayed=replayed)
        return OutboxEvent(row.seq, row.event_id, event.event_type, payload)

    def mark_sent(self, event: OutboxEvent, now: float) -> None:
        """Note that `event` was sent at `now`; a repeat is due in 2 s to 5 min."""
        self._schedule.mark_sent(event.event_id, event.seq, now)

    def postpone(self, event: OutboxEvent, now: float) -> None:
        """Delay an event while its last copy is still on its way to the broker."""
        self._schedule.postpone(event.event_id, now)

    def reconnected(self, now: float) -> None:
        """Make all events without a receipt due again, spread by their number."""
        self._schedule.reconnected(now, self._spread())

    def answered(self, now: float) -> None:
        """Note an answer of the bridge.

        The first one after a silence makes all events due again.
        """
        self._schedule.answered(now, self._spread())

    def _spread(self) -> float:
        return min(2.0, 0.01 * len(self._schedule))

    def next_due(self) -> float | None:
        """Return when the next repeat is due (monotonic seconds)."""
        return self._schedule.next_due()

    def settle(self, event_ids: Sequence[str]) -> int:
        """Delete the events that the bridge has stored, and return how many were waiting.

        Unknown ids and repeated receipts count nothing.
        """
        waiting = self._rows.settle(event_ids)
        for event_id in event_ids:
            self._schedule.forget(event_id)
        return waiting

    def reject(self, rejections: Iterable[Rejection]) -> int:
        """Move events that the bridge rejected; return how many were waiting.

        The newest thousand rejected events stay.
        """
        rejected = list(rejections)
        waiting = self._rows.reject(rejected)
        for rejection in rejected:
            self._schedule.forget(rejection.event_id)
        return waiting

    def rejected(self) -> list[RejectedEvent]:
        """Return the rejected events, oldest first."""
        return self._rows.rejected()

    def requeue(self, event_ids: Iterable[str]) -> int:
        """Queue rejected events again; return how many were found."""
        return self._rows.requeue(event_ids)

    @property
    def problem(self) -> WireError | None:
        """Why events are not written to the disk, None while they are."""
        failure, count = self._rows.failure, self._rows.memory_count
        if failure is None:
            return None
        detail = f"{count} events are in memory only, and lost if the program ends: {failure}"
        return WireError(code=STORE_FAILED, detail=detail[:1000])

    @property
    def depth(self) -> int:
        """The number of events without a receipt."""
        return self._rows.depth

    @property
    def rejected_count(self) -> int:
        return self._rows.rejected_count

    @property
    def events_dropped(self) -> int:
        """The number of whole events dropped for the budget, over all runs."""
        return self._rows.events_dropped

    @property
    def images_dropped(self) -> int:
        """The number of images dropped for the budget, over all runs."""
        return self._rows.images_dropped


def _payload(event: Event, image: bytes | None, *, replayed: bool) -> bytes:
    text = base64.b64encode(image).decode("ascii") if image is not None else None
    return event.model_copy(
        update={"image": text, "metadata": {**event.metadata, "replayed": replayed}}
    ).to_json()
