"""Orders from the backend, on a real SQLite file."""

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
    """Commands on a file; `ran` is what was carried out."""

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

    def order(self, command_id="cmd-42", name="resync", *, seconds=60, **args):
        message = Command(id=command_id, args=args, expires_at=NOON + timedelta(seconds=seconds))
        self.commands.receive_message(Decoded(channels.COMMAND, {"command": name}, message))

    def answers(self, count):
        wait_until(lambda: len(self.link.published) >= count, what=f"{count} answers")
        return [(one.id, one.state, one.detail) for one in self.link.of(channels.COMMAND_RESULT)]

    def close(self):
        self.commands.close()
        self.db.close()


@pytest.fixture
def camera(tmp_path):
    camera = Camera(tmp_path / "device.db")
    yield camera
    camera.close()


def test_a_command_is_accepted_run_and_answered(camera):
    """With its arguments, and a sentence about what was done."""
    camera.order(full=True)
    assert camera.answers(2) == [("cmd-42", "accepted", None), ("cmd-42", "done", "resynced")]
    assert camera.ran == [{"full": True}]


def test_an_id_seen_before_is_answered_again_and_not_run_again(camera, tmp_path):
    """Also after a restart: the broker, or the bridge, may deliver it twice."""
    camera.order()
    camera.answers(2)
    camera.order()
    assert camera.answers(3)[2] == ("cmd-42", "done", "resynced")
    again = Camera(tmp_path / "device.db")
    again.order()
    assert again.answers(1) == [("cmd-42", "done", "resynced")]
    assert (len(camera.ran), again.ran) == (1, [])
    again.close()


def test_one_that_is_running_is_not_started_a_second_time(tmp_path):
    """It says `accepted` once more, and the end comes when it comes."""
    gate, started = Gate(), []

    def slow(args):
        started.append(args)
        gate.wait(10)
        return "slow"

    camera = Camera(tmp_path / "device.db", slow=slow)
    camera.order(name="slow")
    wait_until(lambda: started, what="the command")
    camera.order(name="slow")
    assert [state for _, state, _ in camera.answers(2)] == ["accepted", "accepted"]
    gate.set()
    assert camera.answers(3)[2] == ("cmd-42", "done", "slow")
    assert len(started) == 1
    camera.close()


def test_a_command_that_came_too_late_is_not_carried_out(camera):
    """A door that was to be opened an hour ago stays shut."""
    camera.order(seconds=0)
    assert camera.answers(1)[0][1] == "expired"
    assert camera.ran == []


def test_an_unknown_command_is_answered_with_the_known_commands(camera):
    """The answer names the commands that the device has."""
    camera.order(name="dance")
    assert camera.answers(1) == [("cmd-42", "unknown", "expected one of resync")]


def test_what_fails_says_so(tmp_path):
    """A failure that was foreseen has its sentence; any other its kind, and the next command runs."""

    def foreseen(args):
        raise CommandFailedError("there is no camera")

    def unforeseen(args):
        raise KeyError("secret")

    camera = Camera(tmp_path / "device.db", foreseen=foreseen, unforeseen=unforeseen)
    camera.order("c-1", "foreseen")
    camera.order("c-2", "unforeseen")
    camera.order("c-3")
    ends = [answer for answer in camera.answers(6) if answer[1] != "accepted"]
    assert ends == [
        ("c-1", "failed", "there is no camera"),
        ("c-2", "failed", "KeyError; see the device's log"),
        ("c-3", "done", "resynced"),
    ]
    camera.close()


def test_answers_are_remembered_within_bounds(camera):
    """The newest 64; the row on disk does not grow for ever."""
    for number in range(200):
        camera.order(f"c-{number}", seconds=0)
    camera.answers(200)
    assert len(camera.db.get_config("answered_commands")) < 64 * 120
    camera.order("c-199", seconds=60)
    assert camera.answers(201)[200][1] == "expired"


def test_one_that_waited_too_long_behind_another_is_not_carried_out(tmp_path):
    """It came in time, but its time was over when its turn came."""
    gate = Gate()
    camera = Camera(tmp_path / "device.db", slow=lambda args: str(gate.wait(10)))
    camera.order("c-1", "slow", seconds=600)
    camera.order("c-2", seconds=60)
    camera.now = NOON + timedelta(seconds=61)
    gate.set()
    assert camera.answers(4)[3][:2] == ("c-2", "expired")
    assert camera.ran == []
    camera.close()


def test_a_disk_that_fails_does_not_swallow_an_answer(camera, caplog):
    """What was done is said to the backend, and what is wrong to the log; the next command runs."""
    camera.db.connection.close()
    camera.order("c-1")
    camera.order("c-2")
    states = {(command_id, state) for command_id, state, _ in camera.answers(4)}
    assert {("c-1", "done"), ("c-2", "done")} <= states
    assert "command answer not stored id=c-1" in caplog.text
    camera.order("c-1")
    assert camera.answers(5)[4][:2] == ("c-1", "done")
    assert len(camera.ran) == 2


def test_a_device_that_stops_starts_no_further_command(tmp_path):
    """Neither one that waits nor one that comes now; both are sent again when it is back."""
    gate, started = Gate(), Gate()

    def slow(args):
        started.set()
        gate.wait(10)
        return "slow"

    camera = Camera(tmp_path / "device.db", slow=slow)
    camera.order("c-1", "slow")
    assert started.wait(10)
    camera.order("c-2")
    camera.commands.close()
    camera.order("c-3")
    gate.set()
    assert camera.answers(3)[2] == ("c-1", "done", "slow")
    assert (camera.ran, [one[0] for one in camera.answers(3)]) == ([], ["c-1", "c-2", "c-1"])
    camera.close()


def test_a_command_that_never_ends_does_not_keep_the_program_from_ending(tmp_path):
    """As a network may that a driver lost: the interpreter does not wait for it."""
    program = """
import threading
from pathlib import Path
from tests.unit.device.management.test_commands import Camera
running = threading.Event()
def hang(args):
    running.set()
    threading.Event().wait()
camera = Camera(Path("device.db"), hang=hang)
camera.order(name="hang")
running.wait()
camera.close()
"""
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, timeout=30, check=True)
