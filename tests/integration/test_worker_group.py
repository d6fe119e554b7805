"""Several bridge workers from one command: they start, stop and end together."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from deploy.local.stack import Mongod, Mosquitto, Program
from tests.conftest import StartProgram
from tests.waiting import wait_until


@pytest.fixture
def group(
    tmp_path: Path, mosquitto: Mosquitto, mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> Program:
    """Start a group of two workers and wait until both are connected."""
    broker = {
        "host": mosquitto.host,
        "port": mosquitto.port,
        "username": "bridge",
        "password": mosquitto.users["bridge"],
    }
    settings = {
        "mqtt": broker,
        "mongo": {"uri": mongod.uri, "database": mongo_database},
        "log": {"level": "info"},
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings))
    started = start_program([sys.executable, "-m", "broker_bridge", "--config", str(file), "--workers", "2"])
    wait_until(lambda: started.output().count("link connected to the broker") == 2, "both are connected")
    return started


def workers_of(group: Program) -> list[int]:
    children = Path(f"/proc/{group.pid}/task/{group.pid}/children").read_text().split()
    return [int(child) for child in children]


def is_alive(pid: int) -> bool:
    """Return whether a process runs.

    One that has ended and is not waited for does not.
    """
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_hangup_reloads_both_and_sigterm_stops_both(group: Program) -> None:
    """Each worker stores what waits and leaves before the command ends with status 0."""
    workers = workers_of(group)
    assert len(workers) == 2
    group.process.send_signal(signal.SIGHUP)
    wait_until(lambda: group.output().count("settings reloaded") == 2, "both have reloaded")
    assert group.stop() == 0
    assert group.output().count("bridge stopped health=") == 2
    assert not any(is_alive(worker) for worker in workers)


def test_a_worker_that_dies_ends_the_others_with_a_status(group: Program) -> None:
    """A supervisor starts all again, rather than to find half of them some day."""
    first, second = workers_of(group)
    os.kill(first, signal.SIGKILL)
    assert group.wait() == 1
    assert f"bridge worker ended; stopping the others pid={first} status=-9" in group.output()
    assert not is_alive(second)


def test_the_workers_stop_when_the_command_is_killed(group: Program) -> None:
    """No worker goes on alone, unseen."""
    workers = workers_of(group)
    group.kill()
    wait_until(lambda: not any(is_alive(worker) for worker in workers), "the workers have ended")
    assert group.output().count("bridge stopped health=") == 2
