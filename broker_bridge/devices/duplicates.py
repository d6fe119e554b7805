"""Notice two devices that use one id in turns."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

WINDOW = timedelta(minutes=15)
_REMEMBERED = 8
_MAX_DEVICES = 20_000


@dataclass(frozen=True)
class _Turn:
    source: str
    address: str | None
    at: datetime


class DuplicateWatch:
    """Remembers which program or session had its turn under each device id.

    A restart brings a new one; only two that work at the same time come back in turns.
    """

    def __init__(self) -> None:
        self._turns: dict[str, deque[_Turn]] = {}

    def note(self, device_id: str, source: str, address: str | None, now: datetime) -> list[str] | None:
        """Note a turn of `source`.

        Returns the known addresses if it came back after another one, else None.
        """
        if device_id not in self._turns and len(self._turns) >= _MAX_DEVICES:
            del self._turns[next(iter(self._turns))]
        turns = self._turns.setdefault(device_id, deque(maxlen=_REMEMBERED))
        while turns and now - turns[0].at > WINDOW:
            turns.popleft()
        came_back = bool(turns) and turns[-1].source != source and any(t.source == source for t in turns)
        if not turns or turns[-1].source != source:
            turns.append(_Turn(source, address, now))
        if not came_back:
            return None
        return sorted({turn.address for turn in turns if turn.address})
