"""Orders from the backend, on a real SQLite file."""

from datetime import timedelta
from threading import Event as Gate

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import Command
from device.commands import CommandFailedError, Commands
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
        self.commands = Commands(
            self.link, self.db, {"resync": self.resync, **handlers}, utc_now=lambda: NOON
        )

    def resync(self, args):
        self.ran.append(args)
        return "resynced"

    def order(self, command_id="cmd-42", name="resync", *, seconds=60, **args):
        message = Command(id=command_id, args=args, expires_at=NOON + timedelta(seconds=seconds))
        self.commands.receive(Decoded(channels.COMMAND, {"command": name}, message), 0.0)

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


def test_a_command_that_nobody_knows_is_answered_with_those_that_are_known(camera):
    """The person who typed it sees at once what is wrong."""
    camera.order(name="dance")
    assert camera.answers(1) == [("cmd-42", "unknown", "this device knows resync")]


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
