"""Notice that another client uses this device's id."""

from broker_bridge.contract.errors import DUPLICATE_ID
from broker_bridge.contract.messages import WireError

_WINDOW_SECONDS = 900.0
_EVIDENCE = 2
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0


class Takeovers:
    """Counts the connections that another client took over (reason code 0x8E).

    Each take-over within 15 minutes doubles the pause before the next attempt, up to five minutes, so that
    two devices with one id do not throw each other out without end.
    """

    def __init__(self) -> None:
        self._at: list[float] = []

    def note(self, now: float) -> float:
        """Note a take-over at `now` (monotonic); return the seconds to pause."""
        self._at = [at for at in self._at[-15:] if now - at < _WINDOW_SECONDS]
        self._at.append(now)
        return float(min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (len(self._at) - 1)))

    def problems(self, now: float) -> list[WireError]:
        """Return the problem for the heartbeat, if there is one at `now`."""
        count = sum(1 for at in self._at if now - at < _WINDOW_SECONDS)
        if count < _EVIDENCE:
            return []
        detail = (
            f"another client with this id took the connection over {count} times in 15 minutes: "
            "give each device an id of its own (WFM_DEVICE__ID)"
        )
        return [WireError(code=DUPLICATE_ID, detail=detail)]
