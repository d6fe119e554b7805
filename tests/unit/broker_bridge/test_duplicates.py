"""Test how two devices with one id are noticed."""

from datetime import datetime, timedelta, timezone

import pytest

from broker_bridge.contract.messages import DeviceInfo
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


def info(instance: str | None, address: str | None = None) -> DeviceInfo:
    return DeviceInfo(site_id="lobby", software="1", spaces={}, instance=instance, address=address)


def test_takeovers_slow_a_device_down_and_are_a_problem() -> None:
    """The pause grows to five minutes; the problem ends with them."""
    takeovers = Takeovers("own")
    pauses = [takeovers.note_lost(0x8E, 100.0)]
    assert takeovers.problems(101.0) == []
    pauses += [takeovers.note_lost(0x8E, 101.0 + n) for n in range(9)]
    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]
    assert [problem.code for problem in takeovers.problems(110.0)] == ["duplicate-id"]
    assert takeovers.problems(2000.0) == []


@pytest.mark.parametrize(
    ("infos", "count"),
    [("obob", 2), ("oobboob", 2), ("obcbob", 2), ("bcobob", 2), ("ob", 0), ("bo", 0), ("bbbo", 0),
     ("oooo", 0), ("o-o-", 0), ("bcbc", 0), ("obbbb", 0)],
)  # fmt: skip
def test_another_info_in_place_of_the_own_one_is_a_takeover(infos: str, count: int) -> None:
    """An older program of this device had the topic before; it is no evidence."""
    takeovers = Takeovers("o")
    for instance in infos:
        takeovers.note_info(info(None if instance == "-" else instance, "10.0.0.9"), 100.0)
    details = [problem.detail for problem in takeovers.problems(101.0)]
    assert len(details) == bool(count)
    assert all(f"{count} times" in detail and "10.0.0.9" in detail for detail in details)


@pytest.mark.parametrize(("code", "pause"), [(None, 5.0), (0x8B, 0.0), (0x98, 0.0), (0x8E, 10.0)])
def test_only_an_end_without_a_reason_is_slowed_down_after_a_takeover(code: int | None, pause: float) -> None:
    """A broker that stops says so; its devices come back at once."""
    takeovers = Takeovers("own")
    assert takeovers.note_lost(None, 100.0) == 0.0
    takeovers.note_info(info("own"), 101.0)
    takeovers.note_info(info("other"), 102.0)
    assert takeovers.note_lost(code, 103.0) == pause


@pytest.mark.parametrize("code", [0x8E, None])
def test_two_devices_with_one_id_do_not_storm_for_a_day(code: int | None) -> None:
    """The pauses stay long, and the problem is shown without a gap."""
    names = ("a", "b")
    devices = tuple(Takeovers(name) for name in names)
    devices[0].note_info(info("a"), 0.0)
    due = {1: 0.0}
    holder, now, connections = 0, 0.0, 0
    while now < 86_400:
        ((other, now),) = due.items()
        connections += 1
        due = {holder: now + max(0.5, devices[holder].note_lost(code, now))}
        for name in (names[holder], names[other]):
            devices[other].note_info(info(name), now)
        holder = other
        if now > 30:
            assert devices[holder].problems(now + 0.1)
    assert connections < 320
    assert not any(device.problems(now + 901) for device in devices)
