"""Deliver events from the outbox to the broker, and settle them by receipts."""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Literal

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, EVENT_TIME_IMPLAUSIBLE
from broker_bridge.contract.messages import Receipts, Rejection
from device.mqtt.link import Link, Publication, SessionListener
from device.store.outbox import Outbox
from device.timing.device_clock import DeviceClock

_log = logging.getLogger(__name__)

Outcome = Literal["stored", "rejected"]
# Temporary rejections: a camera that is not registered yet loses no events.
_TEMPORARY_CODES = frozenset({DEVICE_UNKNOWN})
# The limit of events on their way to the broker: repeats must not flood a slow connection.
_MAX_IN_FLIGHT = 100
_BATCH = 50
# Another process may have queued rejected events again.
_POLL_SECONDS = 10.0
_BUSY_SECONDS = 0.05
# A clock that is set meanwhile is noticed within this time.
_CLOCK_SECONDS = 2.0


class EventDelivery(SessionListener):
    """The sender of due events; a receipt settles an event.

    A broker's acknowledgement settles nothing. With a `clock` events wait until they can be dated. Runs in
    the link's thread, except `await_receipt` and `stop_waiting`. `counts` has `sent`, `stored`,
    `rejected` and `refused_for_now`.
    """

    def __init__(self, outbox: Outbox, link: Link, clock: DeviceClock | None = None) -> None:
        self._outbox = outbox
        self._clock = clock
        self._connected_at = 0.0
        # Sent with a date that the backend's time had not confirmed.
        self._unverified: set[str] = set()
        self._link = link
        self._online = False
        self._answered = False
        self._in_flight: dict[str, Publication] = {}
        self._waiting: dict[str, Future[Outcome]] = {}
        self.counts: Counter[str] = Counter()

    def connected(self, now: float) -> None:
        self._online = True
        self._connected_at = now
        self._in_flight.clear()
        self._outbox.reconnected(now)

    def disconnected(self) -> None:
        self._online = False
        self._in_flight.clear()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.RECEIPT:
            self._settle(decoded.message)
        # A head comes from a bridge that has started or leads again.
        self._answered |= decoded.channel in (channels.RECEIPT, channels.SYNC_HEAD)

    def _settle(self, receipts: Receipts) -> None:
        temporary = [rejection for rejection in receipts.rejected if self._is_temporary(rejection)]
        final = [rejection for rejection in receipts.rejected if rejection not in temporary]
        # A repeated receipt, after a repeated event, settles nothing more.
        self.counts["stored"] += self._outbox.settle(receipts.stored)
        self.counts["rejected"] += self._outbox.reject(final)
        for event_id in receipts.stored:
            self._resolve(event_id, "stored")
        for rejection in final:
            self._resolve(rejection.event_id, "rejected")
        self._count_temporary(temporary)

    def _is_temporary(self, rejection: Rejection) -> bool:
        """Return whether to send the event again: its device or time may be known then."""
        if rejection.code == EVENT_TIME_IMPLAUSIBLE:
            return rejection.event_id in self._unverified
        return rejection.code in _TEMPORARY_CODES

    def _count_temporary(self, rejections: Sequence[Rejection]) -> None:
        """Count temporary rejections and log the first; their events are sent again."""
        if rejections and not self.counts["refused_for_now"]:
            _log.error(
                "events rejected for now; they stay in the outbox code=%s detail=%r",
                rejections[0].code,
                rejections[0].detail,
            )
        self.counts["refused_for_now"] += len(rejections)

    def _resolve(self, event_id: str, outcome: Outcome) -> None:
        _log.debug("event settled event_id=%s outcome=%s", event_id, outcome)
        self._in_flight.pop(event_id, None)
        self._unverified.discard(event_id)
        waiting = self._waiting.pop(event_id, None)
        if waiting is not None:
            try:
                waiting.set_result(outcome)
            except InvalidStateError:
                # Its caller stopped waiting at the same moment.
                return

    def tick(self, now: float) -> float | None:
        if not self._online:
            return None
        if self._answered:
            self._answered = False
            self._outbox.answered(now)
        clock = self._clock
        if clock is not None and not clock.can_date(now - self._connected_at):
            held_until = self._connected_at + clock.hold_seconds
            return held_until if held_until > now else now + _CLOCK_SECONDS
        self._in_flight = {
            event_id: publication
            for event_id, publication in self._in_flight.items()
            if not publication.is_out()
        }
        room = min(_BATCH, _MAX_IN_FLIGHT - len(self._in_flight))
        due = self._outbox.due(now, room) if room > 0 else []
        for event in due:
            if event.event_id in self._in_flight:
                self._outbox.postpone(event, now)
                continue
            publication = self._link.publish(channels.EVENT, event.payload, event_type=event.event_type)
            if publication is None:
                self._online = False
                return None
            self._in_flight[event.event_id] = publication
            self._note_date(event.event_id)
            self._outbox.mark_sent(event, now)
            self.counts["sent"] += 1
        if len(due) == _BATCH:
            return now
        if room <= 0:
            return now + _BUSY_SECONDS
        next_due = self._outbox.next_due()
        return min(next_due, now + _POLL_SECONDS) if next_due is not None else now + _POLL_SECONDS

    def _note_date(self, event_id: str) -> None:
        if self._clock is None or self._clock.anchor_of(self._clock.boot.id) is not None:
            self._unverified.discard(event_id)
        else:
            self._unverified.add(event_id)

    def await_receipt(self, event_id: str) -> "Future[Outcome]":
        """Return the outcome of `event_id` as a future.

        Call it before the event is put into the outbox.
        """
        waiting: Future[Outcome] = Future()
        self._waiting[event_id] = waiting
        return waiting

    def stop_waiting(self, event_id: str) -> None:
        """Cancel the future of `event_id`; the event stays in the outbox."""
        waiting = self._waiting.pop(event_id, None)
        if waiting is not None:
            waiting.cancel()
