"""Date an event when it is sent: its clock may have been wrong when it happened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue

from broker_bridge.contract.messages import Event
from device.timing.device_clock import Anchor, DeviceClock, Stamp, is_close, is_plausible

BACKEND: Final = "backend"
"""`dated_by`: the device's clock was wrong, the backend's time and the monotonic clock give the date."""
UNVERIFIED: Final = "unverified"
"""`dated_by`: the device's clock, which was not compared with the backend's."""
ESTIMATE: Final = "estimate"
"""`dated_by`: the latest time possible; the device was switched off before its clock was known."""

_MOST_DELAY = timedelta(days=1)
_AHEAD = timedelta(minutes=1)
_OLDEST = timedelta(days=366)


@dataclass(frozen=True)
class EventDating:
    """Dates stored events by `clock`.

    `last_ms` has the last moment with a stored event of each boot, in milliseconds since its start.
    """

    clock: DeviceClock
    last_ms: Mapping[str, int] = field(default_factory=dict)

    def date(self, event: Event, stamp: Stamp) -> Event:
        """Return `event`, stored at `stamp`, with its time corrected or marked.

        The id stays: its milliseconds say what the clock showed. An event of a right clock is unchanged.
        """
        anchor = self.clock.anchor_of(stamp.boot_id)
        if anchor is not None and stamp.boot_ms is not None:
            return _date_by(event, stamp, anchor)
        now = self.clock.stamp()
        if stamp.boot_id == self.clock.boot.id:
            # The clock may have been set since: its present time counts back to the event.
            wall_ms = Anchor(0, 0).time_at(0)
            present = Anchor(round((now.wall - wall_ms) / timedelta(milliseconds=1)) - (now.boot_ms or 0), 0)
            return _mark(_date_by(event, stamp, present), UNVERIFIED)
        latest = self.clock.utc_now()
        if stamp.boot_id is not None:
            latest -= timedelta(milliseconds=now.boot_ms or 0)
        if is_plausible(event.timestamp) and event.timestamp <= latest + _AHEAD:
            return _mark(event, UNVERIFIED)
        before_end = self.last_ms.get(stamp.boot_id or "", 0) - (stamp.boot_ms or 0)
        return _redate(event, latest - timedelta(milliseconds=max(0, before_end)), ESTIMATE)


def _date_by(event: Event, stamp: Stamp, anchor: Anchor) -> Event:
    stored_at = anchor.time_at(stamp.boot_ms or 0)
    age = stamp.wall - event.timestamp
    if -_AHEAD <= age <= _MOST_DELAY:
        if is_close(stamp.wall, stored_at, anchor):
            return event
        return _redate(event, stored_at - age, BACKEND)
    # The clock was set between event and outbox, or the event's time is of another clock.
    if stored_at - _OLDEST <= event.timestamp <= stored_at + _AHEAD:
        return event
    return _redate(event, stored_at, ESTIMATE)


def _redate(event: Event, at: datetime, dated_by: str) -> Event:
    offset = (event.timestamp - at) / timedelta(milliseconds=1)
    metadata: dict[str, JsonValue] = {"clock_offset_ms": round(offset), "dated_by": dated_by}
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    return event.model_copy(update={"timestamp": at, "metadata": {**event.metadata, **metadata}})


def _mark(event: Event, dated_by: str) -> Event:
    return event.model_copy(update={"metadata": {**event.metadata, "dated_by": dated_by}})
