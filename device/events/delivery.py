"""Delivery: from the outbox to the broker, and from receipts back to the outbox."""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Literal

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN
from broker_bridge.contract.messages import Receipts, Rejection
from device.mqtt.link import Link, Publication, SessionListener
from device.store.outbox import Outbox

_log = logging.getLogger(__name__)

Outcome = Literal["stored", "rejected"]
# Refusals that end by themselves: the events of a camera that nobody has registered yet are not lost.
_FOR_NOW = frozenset({DEVICE_UNKNOWN})
# So many may be on their way to the broker at once: a slow line is not flooded with repeats.
_MOST_UNSENT = 100
_BATCH = 50
# Another process may have put rejected events back in line.
_LOOK_AGAIN = 10.0


class EventDelivery(SessionListener):
    """Sends what is due and settles what has a receipt. A broker's acknowledgement settles nothing.

    Runs in the link's thread, except `await_receipt`.
    """

    def __init__(self, outbox: Outbox, link: Link) -> None:
        self._outbox = outbox
        self._link = link
        self._online = False
        self._on_their_way: dict[str, Publication] = {}
        self._waiting: dict[str, Future[Outcome]] = {}
        self.counts: Counter[str] = Counter()

    def connected(self, now: float) -> None:
        self._online = True
        self._on_their_way.clear()
        self._outbox.reconnected(now)

    def disconnected(self) -> None:
        self._online = False
        self._on_their_way.clear()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.RECEIPT:
            self._settle(decoded.message)

    def _settle(self, receipts: Receipts) -> None:
        final = [one for one in receipts.rejected if one.code not in _FOR_NOW]
        self._outbox.settle(receipts.stored)
        self._outbox.reject(final)
        self.counts["stored"] += len(receipts.stored)
        self.counts["rejected"] += len(final)
        for event_id in receipts.stored:
            self._tell(event_id, "stored")
        for one in final:
            self._tell(one.event_id, "rejected")
        self._note_refusals([one for one in receipts.rejected if one.code in _FOR_NOW])

    def _note_refusals(self, refused: Sequence[Rejection]) -> None:
        """Said once; the events wait and are sent again."""
        if refused and not self.counts["refused_for_now"]:
            _log.error("events wait here, the bridge refuses them for now: %s", refused[0].detail)
        self.counts["refused_for_now"] += len(refused)

    def _tell(self, event_id: str, outcome: Outcome) -> None:
        _log.debug("event %s is %s", event_id, outcome)
        self._on_their_way.pop(event_id, None)
        waiting = self._waiting.pop(event_id, None)
        if waiting is not None:
            try:
                waiting.set_result(outcome)
            except InvalidStateError:
                # Its caller gave up in this very moment.
                return

    def tick(self, now: float) -> float | None:
        if not self._online:
            return None
        self._on_their_way = {key: one for key, one in self._on_their_way.items() if not one.is_out()}
        room = min(_BATCH, _MOST_UNSENT - len(self._on_their_way))
        due = self._outbox.due(now, room) if room > 0 else []
        for event in due:
            if event.event_id in self._on_their_way:
                self._outbox.postpone(event, now)
                continue
            publication = self._link.publish(channels.EVENT, event.payload, event_type=event.event_type)
            if publication is None:
                self._online = False
                return None
            self._on_their_way[event.event_id] = publication
            self._outbox.mark_sent(event, now)
            self.counts["sent"] += 1
        if len(due) == _BATCH:
            return now
        if room <= 0:
            return now + 0.05
        following = self._outbox.next_due()
        return min(following, now + _LOOK_AGAIN) if following is not None else now + _LOOK_AGAIN

    def await_receipt(self, event_id: str) -> "Future[Outcome]":
        """What the bridge will say about `event_id`; ask before the event is put into the outbox."""
        waiting: Future[Outcome] = Future()
        self._waiting[event_id] = waiting
        return waiting

    def give_up(self, event_id: str) -> None:
        """Nobody waits for `event_id` any more; it stays in the outbox."""
        waiting = self._waiting.pop(event_id, None)
        if waiting is not None:
            waiting.cancel()
