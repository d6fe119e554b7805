"""When the watchdog ends a program, and what it tells systemd."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker_bridge.common import watchdog
from broker_bridge.common.watchdog import EXIT_STATUS, Vitals, Watchdog, end_within
from tests.source_tree import ROOT
from tests.waiting import wait_until

WELL = (True, True, False)
STUCK = (False, True, False)
UNABLE = (True, False, False)
STOPPING = (True, True, True)


@pytest.mark.parametrize(
    ("ticks", "reason"),
    [
        ([WELL] * 100, None),
        ([STUCK] * 29, None),
        ([STUCK] * 30, "event loop does not turn"),
        ([STUCK] * 29 + [WELL] + [STUCK] * 29, None),
        ([UNABLE] * 4, None),
        ([UNABLE] * 5, "program cannot work any more"),
        ([UNABLE] * 4 + [WELL] + [UNABLE] * 4, None),
        ([STOPPING] * 8, None),
        ([STOPPING] * 9, "program does not stop"),
        ([STUCK] * 25 + [(False, True, True)] * 5, "event loop does not turn"),
    ],
)
def test_a_program_ends_after_too_many_bad_ticks(
    ticks: Sequence[tuple[bool, bool, bool]], reason: str | None
) -> None:
    vitals = Vitals()
    found = [vitals.tick(turned=turned, able=able, stopping=stopping) for turned, able, stopping in ticks]
    assert found[:-1] == [None] * (len(ticks) - 1)
    assert found[-1] == reason


@pytest.mark.parametrize(("tick", "well"), [(WELL, True), (UNABLE, False), (STOPPING, True)])
def test_systemd_hears_of_a_program_only_while_it_works(tick: tuple[bool, bool, bool], well: bool) -> None:
    vitals = Vitals()
    turned, able, stopping = tick
    vitals.tick(turned=turned, able=able, stopping=stopping)
    assert vitals.is_well is well


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_TICK_SECONDS", 0.01)


@pytest.mark.usefixtures("quick_ticks")
def test_a_blocked_event_loop_ends_the_program() -> None:
    statuses: list[int] = []

    async def block() -> None:
        Watchdog({}, statuses.append).start(asyncio.get_running_loop())
        await asyncio.sleep(0.5)
        assert not statuses
        wait_until(lambda: statuses, "the end of the program")

    asyncio.run(block())
    assert statuses == [EXIT_STATUS]


@pytest.mark.usefixtures("quick_ticks")
def test_a_program_that_does_not_stop_is_ended() -> None:
    statuses: list[int] = []

    async def refuse() -> None:
        dog = Watchdog({}, statuses.append)
        dog.start(asyncio.get_running_loop())
        dog.stopping()
        while not statuses:
            await asyncio.sleep(0.01)

    asyncio.run(refuse())
    assert statuses == [EXIT_STATUS]


@pytest.mark.usefixtures("quick_ticks")
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified_over_its_socket(tmp_path: Path, abstract: bool) -> None:
    """READY once, WATCHDOG while the program is able, STOPPING at the end."""
    name = f"@wfm-test-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    statuses: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(10)

        async def work() -> list[bytes]:
            dog = Watchdog({"NOTIFY_SOCKET": name}, statuses.append)
            dog.ready(lambda: True)
            dog.start(asyncio.get_running_loop())
            heard = [systemd.recv(100)]
            await asyncio.sleep(0.05)
            heard.append(systemd.recv(100))
            dog.stopping()
            while heard[-1] != b"STOPPING=1":
                heard.append(systemd.recv(100))
            return heard

        heard = asyncio.run(work())
        wait_until(lambda: statuses, "the end of the watch")
    assert heard[0] == b"READY=1"
    assert set(heard[1:-1]) == {b"WATCHDOG=1"}


def test_a_missing_socket_of_systemd_is_no_failure(tmp_path: Path) -> None:
    Watchdog({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready(lambda: True)


def test_a_program_of_threads_ends_in_time() -> None:
    statuses: list[int] = []
    end_within(0.01, statuses.append)
    wait_until(lambda: statuses, "the end of the program")
    assert statuses == [EXIT_STATUS]


def test_a_camera_program_that_is_stuck_ends_at_sigterm() -> None:
    """Its main thread waits for ever, with a signal handler that cannot stop it."""
    program = """
import signal, threading
from broker_bridge.common.watchdog import end_within
from device.__main__ import on_signal
on_signal(lambda: None, lambda: end_within(0.2))
print("up", flush=True)
lock = threading.Lock()
lock.acquire()
while True:
    lock.acquire(timeout=60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(30) == EXIT_STATUS
