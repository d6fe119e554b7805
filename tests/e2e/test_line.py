"""Run the whole product as processes: the demo, and SIGTERM after failures."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local import sample_video
from deploy.local.fleet import LocalFleet
from deploy.local.stack import ROOT

CAMERA = "cam-001"
LIMIT_SECONDS = 10.0
USUAL_PORTS = (1883, 8000, 27017)


def test_the_demo_passes_all_its_checks() -> None:
    """The demo shows the way from video to MongoDB and leaves no process.

    Two cameras receive enrollments and confirm a deletion within a second. The default ports are in use,
    so the stack takes others.
    """
    with contextlib.ExitStack() as taken:
        for port in USUAL_PORTS:
            taken.enter_context(listening(port))
        ended = subprocess.run(
            [sys.executable, "-m", "deploy.local.demo", "--once"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "All checks passed." in ended.stdout
    assert "was not recognised again, but seen as unknown" in ended.stdout
    remaining = [
        command for command in map(cmdline, psutil.process_iter()) if "wfm-demo-" in " ".join(command)
    ]
    assert remaining == []


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Occupy `port`, unless another program does already."""
    with socket.socket() as listener:
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        yield


def cmdline(process: psutil.Process) -> list[str]:
    """Return the command of a process, nothing for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def no_failure(_fleet: LocalFleet) -> None:
    """Leave all servers running."""


def kill_broker(fleet: LocalFleet) -> None:
    """Kill the broker."""
    fleet.broker.kill()


def kill_database(fleet: LocalFleet) -> None:
    """Kill MongoDB."""
    fleet.mongod.kill()


def freeze_servers(fleet: LocalFleet) -> None:
    """Freeze broker and MongoDB: connections stay open without an answer."""
    fleet.broker.program.freeze()
    fleet.mongod.program.freeze()


@pytest.mark.parametrize("cause_failure", [no_failure, kill_broker, kill_database, freeze_servers])
def test_each_program_ends_within_ten_seconds_of_sigterm(
    tmp_path: Path, cause_failure: Callable[[LocalFleet], None]
) -> None:
    """Bridge, API and camera end with status 0, also when their servers are gone."""
    with LocalFleet(tmp_path, [CAMERA]) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        (video,) = sample_video.make_sample(tmp_path / "videos", cameras=1)
        camera = fleet.make_device(CAMERA, {"source": str(video.path), "loop": True})
        camera.start()
        camera.wait_for_line("broker connected")
        cause_failure(fleet)
        for program in (camera, fleet.bridge, fleet.api):
            started = time.monotonic()
            status = program.stop(LIMIT_SECONDS)
            assert (program.name, status) == (program.name, 0)
            assert time.monotonic() - started < LIMIT_SECONDS
