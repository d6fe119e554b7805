"""Notice that another client uses this device's id."""

from broker_bridge.common.broker_failures import SESSION_TAKEN_OVER
from broker_bridge.contract.errors import DUPLICATE_ID
from broker_bridge.contract.messages import DeviceInfo, WireError

# Longer than two of the longest pauses: two devices that both wait still belong to one series.
_SERIES_SECONDS = 900.0
_EVIDENCE = 2
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
_MAX_DOUBLINGS = 10


class Takeovers:
    """Counts the connections that another program took over; `instance` is this one's.

    A broker says so by reason code 0x8E, or ends the connection without a reason (Mosquitto 2.0.11). Then the
    retained info shows it: it was this program's and is another one's after the next connect. A series ends
    after 15 minutes without a take-over. Each one of a series doubles the pause before the next attempt, up
    to five minutes, so that two devices with one id do not throw each other out without end.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._count = 0
        self._last = float("-inf")
        self._address: str | None = None
        self._is_own_info_retained = False

    def note_lost(self, code: int | None, now: float) -> float:
        """Note a lost connection at `now` (monotonic); return the seconds to pause."""
        if code == SESSION_TAKEN_OVER:
            # The info of the next connect tells of the same take-over.
            self._is_own_info_retained = False
            self._add(now)
        if code not in (None, SESSION_TAKEN_OVER) or not self._is_going_on(now):
            return 0.0
        doubled = _FIRST_PAUSE_SECONDS * 2 ** min(max(0, self._count - 1), _MAX_DOUBLINGS)
        return float(min(_LONGEST_PAUSE_SECONDS, doubled))

    def note_info(self, info: DeviceInfo, now: float) -> None:
        """Note the info that the broker retains for this id."""
        if info.instance is None:
            return
        if info.instance == self._instance:
            self._is_own_info_retained = True
            return
        self._address = info.address
        if self._is_own_info_retained:
            self._is_own_info_retained = False
            self._add(now)

    def problems(self, now: float) -> list[WireError]:
        """Return the problem for the heartbeat, if there is one at `now`."""
        if self._count < _EVIDENCE or not self._is_going_on(now):
            return []
        where = f" at {self._address}" if self._address else ""
        detail = (
            f"another device with this id{where} took the connection over {self._count} times: "
            "give each device an id of its own (WFM_DEVICE__ID)"
        )
        return [WireError(code=DUPLICATE_ID, detail=detail)]

    def _add(self, now: float) -> None:
        self._count = self._count + 1 if self._is_going_on(now) else 1
        self._last = now

    def _is_going_on(self, now: float) -> bool:
        return now - self._last < _SERIES_SECONDS
