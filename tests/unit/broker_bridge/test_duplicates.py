"""Test how two devices with one id are noticed."""

from datetime import datetime, timedelta, timezone

import pytest

from broker_bridge.devices.duplicates import WINDOW, DuplicateWatch
from device.mqtt.takeovers import Takeovers

NOW = datetime(2026, 1, 15, 10, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("turns", "noticed"),
    [("aba", True), ("abab", True), ("abca", True), ("abcd", False), ("aaaa", False), ("aabbb", False)],
)
def test_only_a_program_that_comes_back_is_a_duplicate(turns: str, noticed: bool) -> None:
    """A restart never comes back; a connection that is lost comes back as itself."""
    watch = DuplicateWatch()
    found = [watch.note("cam-001", turn, f"10.0.0.{ord(turn)}", NOW) for turn in turns]
    assert any(addresses is not None for addresses in found) == noticed
    if turns == "aba":
        assert found[-1] == ["10.0.0.97", "10.0.0.98"]


def test_turns_are_forgotten_and_devices_told_apart() -> None:
    """A camera that was repaired may come back later."""
    watch = DuplicateWatch()
    for n, turn in enumerate("aba"):
        assert watch.note("cam-001", turn, None, NOW + n * (WINDOW + timedelta(seconds=1))) is None
    assert watch.note("cam-002", "b", None, NOW) is None


def test_takeovers_slow_a_device_down_and_are_a_problem() -> None:
    """The pause grows to five minutes; the problem ends with them."""
    takeovers = Takeovers()
    pauses = [takeovers.note(100.0 + n) for n in range(1)]
    assert takeovers.problems(101.0) == []
    pauses += [takeovers.note(101.0 + n) for n in range(9)]
    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]
    assert [problem.code for problem in takeovers.problems(110.0)] == ["duplicate-id"]
    assert takeovers.problems(2000.0) == []
