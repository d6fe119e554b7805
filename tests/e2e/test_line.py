"""The whole product as processes: the demo, and an end in time after any failure."""

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


def test_the_demo_runs_once_and_all_is_as_it_should_be() -> None:
    """Video to MongoDB, enrollment to both cameras, a deletion confirmed within a second, nothing left over.

    Another program uses the default ports, so the stack finds others.
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
    left = [command for command in map(cmdline, psutil.process_iter()) if "wfm-demo-" in " ".join(command)]
    assert left == []


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Occupy `port`, unless another program does already."""
    with socket.socket() as taker:
        with contextlib.suppress(OSError):
            taker.bind(("127.0.0.1", port))
            taker.listen()
        yield


def cmdline(process: psutil.Process) -> list[str]:
    """The command of a process, nothing for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def nothing(_fleet: LocalFleet) -> None:
    """Everything is up."""


def no_broker(fleet: LocalFleet) -> None:
    """The broker is dead."""
    fleet.broker.kill()


def no_database(fleet: LocalFleet) -> None:
    """MongoDB is dead."""
    fleet.mongod.kill()


def no_answer(fleet: LocalFleet) -> None:
    """Broker and MongoDB hold their connections open and say nothing."""
    fleet.broker.program.freeze()
    fleet.mongod.program.freeze()


@pytest.mark.parametrize("trouble", [nothing, no_broker, no_database, no_answer])
def test_each_program_ends_within_ten_seconds_of_sigterm(
    tmp_path: Path, trouble: Callable[[LocalFleet], None]
) -> None:
    """Bridge, API and camera at work end by themselves with status 0, also when their servers are gone."""
    with LocalFleet(tmp_path, [CAMERA]) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        (video,) = sample_video.make_sample(tmp_path / "videos", cameras=1)
        camera = fleet.make_device(CAMERA, {"source": str(video.path), "loop": True})
        camera.start()
        camera.wait_for_line("broker connected")
        trouble(fleet)
        for program in (camera, fleet.bridge, fleet.api):
            started = time.monotonic()
            status = program.stop(LIMIT_SECONDS)
            assert (program.name, status) == (program.name, 0)
            assert time.monotonic() - started < LIMIT_SECONDS
