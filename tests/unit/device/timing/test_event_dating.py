"""The dates of stored events, right or marked."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from device.timing.boot import Boot
from device.timing.device_clock import Anchor, DeviceClock, Stamp
from device.timing.event_dating import BACKEND, ESTIMATE, UNVERIFIED, EventDating
from tests.device_samples import NOON, event

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
BOOTED = datetime(1970, 1, 1, 0, 0, 20, tzinfo=timezone.utc)
ANCHOR = Anchor(round(NOON.timestamp() * 1000), 100)
STORED_MS = 60_000
HAPPENED = NOON + timedelta(milliseconds=STORED_MS)
NOW_SECONDS = 600.0


def dating(
    *anchored: str, wall: datetime | None = None, last_ms: dict[str, int] | None = None
) -> EventDating:
    """Return a dating in boot `b2`, ten minutes after its start at noon."""
    now = NOON + timedelta(seconds=NOW_SECONDS)
    clock = DeviceClock(
        wall=lambda: now,
        boot=Boot("b2", lambda: NOW_SECONDS),
        anchors=dict.fromkeys(anchored, ANCHOR),
    )
    return EventDating(clock, last_ms or {})


def dated(by: EventDating, boot_id: str | None, wall: datetime, age: timedelta = timedelta(0)) -> Any:
    made = event(timestamp=wall - age)
    result = by.date(made, Stamp(wall, boot_id, None if boot_id is None else STORED_MS))
    assert result.event_id == made.event_id
    return result


@pytest.mark.parametrize("boot_id", ["b1", "b2"])
@pytest.mark.parametrize("offset", [HOUR, -HOUR, BOOTED - HAPPENED, 400 * 24 * HOUR, 30 * SECOND, 5 * SECOND])
@pytest.mark.parametrize("age", [0 * SECOND, SECOND, HOUR])
def test_a_compared_clock_dates_by_the_backend(boot_id: str, offset: timedelta, age: timedelta) -> None:
    """The offset is known, also for an event of an earlier boot."""
    result = dated(dating("b1", "b2"), boot_id, HAPPENED + offset, age)
    assert result.timestamp == HAPPENED - age
    assert result.metadata["dated_by"] == BACKEND
    assert result.metadata["clock_offset_ms"] == offset / timedelta(milliseconds=1)


@pytest.mark.parametrize("offset", [0 * SECOND, SECOND, -2 * SECOND])
def test_an_event_of_a_right_clock_is_unchanged(offset: timedelta) -> None:
    """Its metadata stay as they were."""
    made = dated(dating("b2"), "b2", HAPPENED + offset)
    assert made == event(timestamp=HAPPENED + offset)


def test_a_clock_that_was_set_dates_the_events_before() -> None:
    """Without the backend's time the present clock counts back to a 1970 event."""
    result = dated(dating(), "b2", BOOTED)
    assert result.timestamp == HAPPENED
    assert result.metadata["dated_by"] == UNVERIFIED
    assert result.metadata["clock_offset_ms"] < 0
    right = dated(dating(), "b2", HAPPENED)
    assert (right.timestamp, right.metadata["dated_by"]) == (HAPPENED, UNVERIFIED)


@pytest.mark.parametrize("boot_id", ["b1", None])
def test_an_event_of_an_earlier_boot_keeps_a_possible_time(boot_id: str | None) -> None:
    """It is marked: its clock was never compared."""
    yesterday = NOON - 24 * HOUR
    result = dated(dating("b2"), boot_id, yesterday)
    assert (result.timestamp, result.metadata["dated_by"]) == (yesterday, UNVERIFIED)


@pytest.mark.parametrize("wall", [BOOTED, NOON + 2 * HOUR, NOON + 20000 * 24 * HOUR])
def test_an_event_of_an_earlier_boot_with_an_impossible_time_is_estimated(wall: datetime) -> None:
    """The latest time is the start of this boot; the order within the boot stays."""
    by = dating("b2", last_ms={"b1": STORED_MS + 5000})
    result = dated(by, "b1", wall)
    assert (result.timestamp, result.metadata["dated_by"]) == (NOON - 5 * SECOND, ESTIMATE)
    old_row = dated(by, None, BOOTED)
    assert (old_row.timestamp, old_row.metadata["dated_by"]) == (
        NOON + timedelta(seconds=NOW_SECONDS),
        ESTIMATE,
    )


def test_a_time_of_another_clock_is_kept_if_possible() -> None:
    """Firmware that replays its own archive is not corrected; an impossible time is."""
    by = dating("b2")
    archived = dated(by, "b2", HAPPENED + HOUR, age=100 * 24 * HOUR)
    assert archived.timestamp == HAPPENED + HOUR - 100 * 24 * HOUR
    assert "dated_by" not in archived.metadata
    set_between = by.date(event(timestamp=BOOTED), Stamp(HAPPENED, "b2", STORED_MS))
    assert (set_between.timestamp, set_between.metadata["dated_by"]) == (HAPPENED, ESTIMATE)
