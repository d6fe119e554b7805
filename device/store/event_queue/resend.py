"""The resend times of events without a receipt; time is passed in."""

import random
from dataclasses import dataclass

from broker_bridge.common.retry import Backoff

RESEND = Backoff(base=2.0, cap=300.0)
# After this number of sends without a receipt an event no longer blocks new events.
_BLOCKING_ATTEMPTS = 5
_MAX_WINDOWS_TRACKED = 20
# After a silence of this length an answer shows that the bridge works again.
_SILENCE_SECONDS = 10.0


@dataclass
class _SentEvent:
    seq: int
    attempts: int
    due_at: float
    failures: int = 0
    """The sends since the bridge was last known to come back; the delay grows with them."""


class ResendSchedule:
    """The sent events without a receipt.

    A number of `window` of them blocks new events, which bounds memory.
    """

    def __init__(self, window: int, source: random.Random, backoff: Backoff = RESEND) -> None:
        self._window = window
        self._random = source
        self._backoff = backoff
        self._sent: dict[str, _SentEvent] = {}
        self._last_answer = float("-inf")
        self.sent_up_to = 0

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._sent

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def room(self) -> int:
        """How many new events may be sent now."""
        blocking = sum(sent.attempts < _BLOCKING_ATTEMPTS for sent in self._sent.values())
        return max(0, min(self._window - blocking, _MAX_WINDOWS_TRACKED * self._window - len(self._sent)))

    def due(self, now: float) -> list[str]:
        """Return the ids of sent events that are due again, oldest first."""
        due = [(sent.seq, event_id) for event_id, sent in self._sent.items() if sent.due_at <= now]
        return [event_id for _, event_id in sorted(due)]

    def next_due(self) -> float | None:
        return min((sent.due_at for sent in self._sent.values()), default=None)

    def mark_sent(self, event_id: str, seq: int, now: float) -> None:
        sent = self._sent.setdefault(event_id, _SentEvent(seq, 0, now))
        sent.attempts += 1
        sent.failures += 1
        sent.due_at = now + self._backoff.delay(sent.failures, self._random)
        self.sent_up_to = max(self.sent_up_to, seq)

    def postpone(self, event_id: str, now: float) -> None:
        """Delay an event while its last copy waits, without counting a send."""
        sent = self._sent[event_id]
        sent.due_at = now + self._backoff.delay(max(1, sent.failures), self._random)

    def forget(self, event_id: str) -> None:
        self._sent.pop(event_id, None)

    def reconnected(self, now: float, spread: float) -> None:
        """Make all sent events due within `spread` seconds: their last copies may be lost.

        Their delays begin anew.
        """
        for sent in self._sent.values():
            sent.failures = 0
            sent.due_at = min(sent.due_at, now + self._random.uniform(0.0, spread))

    def answered(self, now: float, spread: float) -> None:
        """Note an answer of the bridge; after a silence do as after a reconnect.

        While answers come regularly, an event without one keeps its delay: the bridge cannot read it.
        """
        if now - self._last_answer > _SILENCE_SECONDS:
            self.reconnected(now, spread)
        self._last_answer = now
