"""Commands from the backend, on a real SQLite file."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event as Gate

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import Command
from device.management.commands import CommandFailedError, CommandRunner
from device.store.db_manager import DatabaseManager
from tests.device_samples import NOON, ScriptedLink
from tests.waiting import wait_until


class Camera:
    """A command runner on a file; `ran` has the arguments of the executed commands."""

    def __init__(self, path, **handlers):
        self.link = ScriptedLink()
        self.db = DatabaseManager(path)
        self.db.initialize()
        self.ran = []
        self.now = NOON
        self.commands = CommandRunner(
            self.link, self.db, {"resync": self.resync, **handlers}, utc_now=lambda: self.now
        )

    def resync(self, args):
        self.ran.append(args)
        return "resynced"

    def receive(self, command_id="cmd-42", name="resync", *, seconds=60, **args):
        message = Command(id=command_id, args=args, expires_at=NOON + timedelta(seconds=seconds))
        self.commands.receive_message(Decoded(channels.COMMAND, {"command": name}, message))

    def answers(self, count):
        wait_until(lambda: len(self.link.published) >= count, what=f"{count} answers")
        return [(answer.id, answer.state, answer.detail) for answer in self.link.of(channels.COMMAND_RESULT)]

    def close(self):
        self.commands.close()
        self.db.close()


@pytest.fixture
def camera(tmp_path):
    camera = Camera(tmp_path / "device.db")
    yield camera
    camera.close()


def test_a_command_is_accepted_run_and_answered(camera):
    """The command gets its arguments, and the answer describes the result."""
    camera.receive(full=True)
    assert camera.answers(2) == [("cmd-42", "accepted", None), ("cmd-42", "done", "resynced")]
    assert camera.ran == [{"full": True}]


def test_a_repeated_command_id_is_answered_and_not_run_again(camera, tmp_path):
    """A command that broker or bridge deliver twice runs once, also after a restart."""
    camera.receive()
    camera.answers(2)
    camera.receive()
    assert camera.answers(3)[2] == ("cmd-42", "done", "resynced")
    again = Camera(tmp_path / "device.db")
    again.receive()
    assert again.answers(1) == [("cmd-42", "done", "resynced")]
    assert (len(camera.ran), again.ran) == (1, [])
    again.close()


def test_a_running_command_is_not_started_again(tmp_path):
    """A repeat is answered `accepted`, and the result follows once."""
    gate, started = Gate(), []

    def slow(args):
        started.append(args)
        gate.wait(10)
        return "slow"

    camera = Camera(tmp_path / "device.db", slow=slow)
    camera.receive(name="slow")
    wait_until(lambda: started, what="the command")
    camera.receive(name="slow")
    assert [state for _, state, _ in camera.answers(2)] == ["accepted", "accepted"]
    gate.set()
    assert camera.answers(3)[2] == ("cmd-42", "done", "slow")
    assert len(started) == 1
    camera.close()


def test_an_expired_command_is_not_run(camera):
    """The answer is `expired`."""
    camera.receive(seconds=0)
    assert camera.answers(1)[0][1] == "expired"
    assert camera.ran == []


def test_an_unknown_command_is_answered_with_the_known_commands(camera):
    """The answer lists the commands that the device has."""
    camera.receive(name="dance")
    assert camera.answers(1) == [("cmd-42", "unknown", "expected one of resync")]


def test_a_failed_command_is_answered_with_its_error(tmp_path):
    """An expected failure has its sentence, any other its type.

    The next command runs.
    """

    def expected_failure(args):
        raise CommandFailedError("there is no camera")

    def unexpected_failure(args):
        raise KeyError("secret")

    camera = Camera(
        tmp_path / "device.db", expected_failure=expected_failure, unexpected_failure=unexpected_failure
    )
    camera.receive("c-1", "expected_failure")
    camera.receive("c-2", "unexpected_failure")
    camera.receive("c-3")
    ends = [answer for answer in camera.answers(6) if answer[1] != "accepted"]
    assert ends == [
        ("c-1", "failed", "there is no camera"),
        ("c-2", "failed", "KeyError; see the device's log"),
        ("c-3", "done", "resynced"),
    ]
    camera.close()


def test_answers_are_remembered_within_bounds(camera):
    """The newest 64 are stored; the row on disk stays bounded."""
    for number in range(200):
        camera.receive(f"c-{number}", seconds=0)
    camera.answers(200)
    assert len(camera.db.get_config("answered_commands")) < 64 * 120
    camera.receive("c-199", seconds=60)
    assert camera.answers(201)[200][1] == "expired"


def test_a_command_that_expires_in_the_queue_is_not_run(tmp_path):
    """It arrived in time, but expired before its turn."""
    gate = Gate()
    camera = Camera(tmp_path / "device.db", slow=lambda args: str(gate.wait(10)))
    camera.receive("c-1", "slow", seconds=600)
    camera.receive("c-2", seconds=60)
    camera.now = NOON + timedelta(seconds=61)
    gate.set()
    assert camera.answers(4)[3][:2] == ("c-2", "expired")
    assert camera.ran == []
    camera.close()


def test_a_failing_disk_loses_no_answer(camera, caplog):
    """The backend gets the answer, the log the error, and the next command runs."""
    camera.db.connection.close()
    camera.receive("c-1")
    camera.receive("c-2")
    states = {(command_id, state) for command_id, state, _ in camera.answers(4)}
    assert {("c-1", "done"), ("c-2", "done")} <= states
    assert "command answer not stored id=c-1" in caplog.text
    camera.receive("c-1")
    assert camera.answers(5)[4][:2] == ("c-1", "done")
    assert len(camera.ran) == 2


def test_a_stopping_device_starts_no_further_command(tmp_path):
    """Queued and new commands are sent again after the restart."""
    gate, started = Gate(), Gate()

    def slow(args):
        started.set()
        gate.wait(10)
        return "slow"

    camera = Camera(tmp_path / "device.db", slow=slow)
    camera.receive("c-1", "slow")
    assert started.wait(10)
    camera.receive("c-2")
    camera.commands.close()
    camera.receive("c-3")
    gate.set()
    assert camera.answers(3)[2] == ("c-1", "done", "slow")
    assert (camera.ran, [answer[0] for answer in camera.answers(3)]) == ([], ["c-1", "c-2", "c-1"])
    camera.close()


def test_a_hanging_command_does_not_block_the_end_of_the_program(tmp_path):
    """The interpreter does not wait for the thread of a hanging driver."""
    program = """
import threading
from pathlib import Path
from tests.unit.device.management.test_commands import Camera
running = threading.Event()
def hang(args):
    running.set()
    threading.Event().wait()
camera = Camera(Path("device.db"), hang=hang)
camera.receive(name="hang")
running.wait()
camera.close()
"""
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, timeout=30, check=True)
