"""When an event is sent again: what was sent and has no receipt yet. Pure bookkeeping, time is passed in."""

import random
from dataclasses import dataclass

from broker_bridge.common.retry import Backoff

RESEND = Backoff(base=2.0, cap=300.0)
# After so many sends without an answer an event no longer holds others up.
_PATIENCE = 5
_MOST_TRACKED = 20


@dataclass
class _Flight:
    seq: int
    attempts: int
    due_at: float


class ResendSchedule:
    """Sent events without a receipt; `window` of them hold new events back, so memory stays bounded."""

    def __init__(self, window: int, source: random.Random, backoff: Backoff = RESEND) -> None:
        self._window = window
        self._random = source
        self._backoff = backoff
        self._flights: dict[str, _Flight] = {}
        self.sent_up_to = 0

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def room(self) -> int:
        """How many events that were never sent may go out now."""
        waiting = sum(flight.attempts < _PATIENCE for flight in self._flights.values())
        return max(0, min(self._window - waiting, _MOST_TRACKED * self._window - len(self._flights)))

    def due(self, now: float) -> list[str]:
        """Ids of sent events that are due again, oldest first."""
        due = [(flight.seq, event_id) for event_id, flight in self._flights.items() if flight.due_at <= now]
        return [event_id for _, event_id in sorted(due)]

    def next_due(self) -> float | None:
        return min((flight.due_at for flight in self._flights.values()), default=None)

    def sent(self, event_id: str, seq: int, now: float) -> None:
        flight = self._flights.setdefault(event_id, _Flight(seq, 0, now))
        flight.attempts += 1
        flight.due_at = now + self._backoff.delay(flight.attempts, self._random)
        self.sent_up_to = max(self.sent_up_to, seq)

    def postpone(self, event_id: str, now: float) -> None:
        """The last copy has not left yet: look again later, without counting a send."""
        flight = self._flights[event_id]
        flight.due_at = now + self._backoff.delay(flight.attempts, self._random)

    def forget(self, event_id: str) -> None:
        self._flights.pop(event_id, None)

    def reconnected(self, now: float, spread: float) -> None:
        """Everything unanswered is due within `spread` seconds: its last copy may have died on the way."""
        for flight in self._flights.values():
            flight.due_at = min(flight.due_at, now + self._random.uniform(0.0, spread))
