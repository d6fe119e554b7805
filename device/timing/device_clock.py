"""`DeviceClock`: the time of day of a device, compared with the backend's."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import CLOCK_WRONG
from broker_bridge.contract.messages import WireError
from broker_bridge.contract.wire import format_time

from .boot import Boot, this_boot

_log = logging.getLogger(__name__)

TOLERANCE_MS: Final = 2000
"""A clock is right within this difference, plus the uncertainty of the comparison."""
FIRST_YEAR, LAST_YEAR = 2025, 2100
"""A clock outside of these years is wrong."""
_HOLD_SECONDS: Final = 2.0
_CONTRADICTION_MS: Final = 500
_MOST_LATENCY_MS: Final = 2500

OnAnswer = Callable[[datetime, float], None]
"""Called with the backend's time of an answer, and the seconds since its request."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Anchor:
    """The backend's time at the start of a boot, in milliseconds since 1970.

    The true value lies within `uncertainty_ms` of `backend_ms`, half the round trip of the answer.
    """

    backend_ms: int
    uncertainty_ms: int

    def time_at(self, boot_ms: int) -> datetime:
        return _EPOCH + timedelta(milliseconds=self.backend_ms + boot_ms)

    def is_replaced_by(self, newer: "Anchor") -> bool:
        """Return whether `newer` is clearly better, or contradicts this one.

        Otherwise this one stays, so that an event that is sent again keeps its date.
        """
        apart = abs(newer.backend_ms - self.backend_ms)
        allowed = self.uncertainty_ms + newer.uncertainty_ms + _CONTRADICTION_MS
        return apart > allowed or newer.uncertainty_ms * 2 < self.uncertainty_ms


@dataclass(frozen=True)
class Stamp:
    """One moment on both clocks of a device: `wall` is what its time of day said.

    Rows of older software have no `boot_id` and `boot_ms`.
    """

    wall: datetime
    boot_id: str | None = None
    boot_ms: int | None = None


class DeviceClock:
    """The clocks of a device and what the backend's answers say about them.

    The relation of the backend's time to the seconds since the boot does not change when the time of day is
    set; `save` keeps it over restarts of the program. `anchors` are those of this and earlier boots by id.
    `note_answer` is for one thread, the rest for any.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], datetime] = utc_now,
        boot: Boot | None = None,
        anchors: Mapping[str, Anchor] | None = None,
        save: Callable[[str, Anchor], None] = lambda _boot_id, _anchor: None,
    ) -> None:
        self.boot = boot or this_boot()
        self._wall = wall
        self._anchors = dict(anchors or {})
        self._save = save
        self._was_wrong = False

    def stamp(self) -> Stamp:
        """Return this moment."""
        return Stamp(self._wall(), self.boot.id, int(self.boot.seconds() * 1000))

    def anchor_of(self, boot_id: str | None) -> Anchor | None:
        """Return the backend's time at a boot's start, None if it never answered then."""
        return self._anchors.get(boot_id) if boot_id is not None else None

    def note_answer(self, at: datetime, round_trip: float) -> None:
        """Note an answer of the backend that just came.

        The backend wrote it at `at`; the question was last sent `round_trip` seconds ago. Of a long wait most
        is the question's, which waits for a bridge, while an answer comes at once.
        """
        half_ms = min(max(0.0, round_trip) * 500, _MOST_LATENCY_MS)
        at_ms = (at - _EPOCH) / timedelta(milliseconds=1)
        newer = Anchor(round(at_ms + half_ms - self.boot.seconds() * 1000), round(half_ms))
        known = self.anchor_of(self.boot.id)
        if known is None or known.is_replaced_by(newer):
            self._anchors[self.boot.id] = newer
            self._save(self.boot.id, newer)
        self._log_change()

    def _log_change(self) -> None:
        problem = self.problem()
        if problem is not None and not self._was_wrong:
            _log.error("clock is wrong; check NTP detail=%r", problem.detail)
        elif problem is None and self._was_wrong:
            _log.info("clock is right again")
        self._was_wrong = problem is not None

    def can_date(self, connected_seconds: float) -> bool:
        """Return whether to date and send events, `connected_seconds` after a connect.

        The backend's answer is due by then. Without it a plausible clock must do; an implausible one waits.
        """
        if self.anchor_of(self.boot.id) is not None:
            return True
        return connected_seconds >= _HOLD_SECONDS and is_plausible(self._wall())

    @property
    def hold_seconds(self) -> float:
        """The seconds after a connect that `can_date` waits for the backend's answer."""
        return _HOLD_SECONDS

    def offset_ms(self) -> float | None:
        """Return how far the time of day is ahead of the backend's, None if unknown."""
        anchor = self.anchor_of(self.boot.id)
        if anchor is None:
            return None
        stamp = self.stamp()
        return (stamp.wall - anchor.time_at(stamp.boot_ms or 0)) / timedelta(milliseconds=1)

    def utc_now(self) -> datetime:
        """Return the device's own time if it is right, else the backend's if known."""
        anchor, stamp = self.anchor_of(self.boot.id), self.stamp()
        if anchor is None:
            return stamp.wall
        backend = anchor.time_at(stamp.boot_ms or 0)
        return stamp.wall if is_close(stamp.wall, backend, anchor) else backend

    def problem(self) -> WireError | None:
        """Return the problem `clock-wrong`, None for a clock without a known fault."""
        wall, anchor = self._wall(), self.anchor_of(self.boot.id)
        if anchor is None:
            if is_plausible(wall):
                return None
            detail = f"the clock shows {format_time(wall)}: check NTP; events wait until their time is known"
            return WireError(code=CLOCK_WRONG, detail=detail)
        offset = self.offset_ms() or 0.0
        if abs(offset) <= TOLERANCE_MS + anchor.uncertainty_ms:
            return None
        side = "ahead of" if offset > 0 else "behind"
        return WireError(
            code=CLOCK_WRONG,
            detail=f"the clock is {abs(offset) / 1000:.0f} s {side} the backend's: check NTP; events are "
            "dated by the backend's time",
        )


def is_plausible(at: datetime) -> bool:
    """Return whether a clock that shows `at` may be right."""
    return FIRST_YEAR <= at.year <= LAST_YEAR


def is_close(wall: datetime, backend: datetime, anchor: Anchor) -> bool:
    """Return whether `wall` is right by `backend`, within the uncertainty of `anchor`."""
    return abs((wall - backend) / timedelta(milliseconds=1)) <= TOLERANCE_MS + anchor.uncertainty_ms
