"""The device's clock, compared with the backend's answers."""

from datetime import datetime, timedelta, timezone

import pytest

from device.timing.boot import Boot, this_boot
from device.timing.device_clock import Anchor, DeviceClock
from tests.device_samples import NOON

HOUR = timedelta(hours=1)
BOOTED = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Machine:
    """True time, seconds since the boot, and a time of day that is `offset` ahead."""

    def __init__(self, offset: timedelta = timedelta(0), **known: object) -> None:
        self.seconds = 50.0
        self.offset = offset
        self.saved: list[tuple[str, Anchor]] = []
        self.clock = DeviceClock(
            wall=lambda: self.now() + self.offset,
            boot=Boot("b1", lambda: self.seconds),
            save=lambda boot_id, anchor: self.saved.append((boot_id, anchor)),
            **known,
        )

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def answer(self, round_trip: float = 0.2, late: float = 0.1) -> None:
        """Receive an answer that the backend wrote `late` seconds ago."""
        self.clock.note_answer(self.now() - timedelta(seconds=late), round_trip)


@pytest.mark.parametrize(
    ("offset", "says"),
    [
        (HOUR, "3600 s ahead of"),
        (-HOUR, "3600 s behind"),
        (timedelta(seconds=30), "30 s ahead of"),
        (BOOTED - NOON, "s behind"),
        (timedelta(days=3650), "s ahead of"),
    ],
)
def test_a_wrong_clock_is_a_problem_and_the_backends_time_counts(offset: timedelta, says: str) -> None:
    """The time follows the backend's over jumps of the time of day."""
    machine = Machine(offset)
    machine.answer()
    problem = machine.clock.problem()
    assert problem is not None
    assert problem.code == "clock-wrong"
    assert says in problem.detail
    assert machine.clock.offset_ms() == pytest.approx(offset / timedelta(milliseconds=1), abs=200)
    machine.seconds += 500.0
    machine.offset = -offset
    assert abs(machine.clock.utc_now() - machine.now()) < timedelta(seconds=0.2)
    machine.offset = timedelta(0)
    assert machine.clock.problem() is None
    assert machine.clock.utc_now() == machine.now()


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(seconds=1.5), timedelta(seconds=-1.5)])
def test_a_clock_within_two_seconds_is_right(offset: timedelta) -> None:
    """Small differences are those of the network."""
    machine = Machine(offset)
    machine.answer()
    assert machine.clock.problem() is None
    assert machine.clock.utc_now() == machine.now() + offset


def test_a_slow_answer_tolerates_more() -> None:
    """Half of the round trip is the uncertainty; a quick answer replaces a slow one."""
    machine = Machine(timedelta(seconds=4))
    machine.answer(round_trip=5.0, late=2.5)
    assert machine.clock.problem() is None
    machine.answer()
    assert machine.clock.problem() is not None


@pytest.mark.parametrize(
    ("offset", "connected", "can_date"),
    [
        (timedelta(0), 0.0, False),
        (timedelta(0), 1.9, False),
        (timedelta(0), 2.0, True),
        (BOOTED - NOON, 3600.0, False),
        (timedelta(days=80 * 365), 3600.0, False),
    ],
)
def test_events_wait_for_the_backends_time(offset: timedelta, connected: float, can_date: bool) -> None:
    """Without an answer a plausible clock must do; an implausible one waits."""
    machine = Machine(offset)
    assert machine.clock.can_date(connected) == can_date
    assert (machine.clock.problem() is None) == (offset == timedelta(0))
    machine.answer()
    assert machine.clock.can_date(0.0)


def test_an_answer_after_a_long_wait_for_the_bridge_is_precise() -> None:
    """The request waited for minutes in the broker, the answer came at once."""
    machine = Machine()
    machine.answer(round_trip=300.0)
    assert abs(machine.clock.offset_ms() or 0.0) < 2500
    machine.offset = timedelta(minutes=1)
    assert machine.clock.problem() is not None


def test_a_comparison_is_kept_unless_contradicted() -> None:
    """Dates stay the same for repeats; a backend whose clock is set is followed."""
    machine = Machine()
    for _ in range(5):
        machine.answer()
        machine.seconds += 900.0
    assert len(machine.saved) == 1
    machine.answer(late=-3600.0)
    assert len(machine.saved) == 2
    again = Machine(HOUR, anchors=dict(machine.saved[:1]))
    assert again.clock.can_date(0.0)
    assert again.clock.problem() is not None


def test_a_machine_without_boot_id_counts_each_program_as_a_boot(tmp_path: object) -> None:
    """Then no moment of an earlier program is mistaken for one of this."""
    missing = tmp_path / "none"
    assert this_boot(missing).id != this_boot(missing).id
    assert this_boot().id == this_boot().id
