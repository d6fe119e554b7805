"""The local stack: real servers, ready when started, never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr
from pymongo import MongoClient

from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from deploy.local.stack import ROOT, Mongod, Mosquitto, Program, ProgramError, free_port
from tests.waiting import wait_until


def test_mongod_takes_transactions_and_keeps_journaled_writes_over_a_kill(own_mongod: Mongod) -> None:
    """One node is a replica set with transactions; journaled writes survive kill -9."""
    with (
        MongoClient(own_mongod.uri) as client,
        client.start_session() as session,
        session.start_transaction(),
    ):
        client.wfm.people.insert_one({"user_id": "EMP-12345"}, session=session)
    own_mongod.kill()
    own_mongod.restart()
    with MongoClient(own_mongod.uri) as client:
        assert client.wfm.people.count_documents({}) == 1


KILLED_IN_A_CHANGE = """
import os, signal, sys
from pymongo import MongoClient
client = MongoClient(sys.argv[1])
session = client.start_session()
session.start_transaction()
client[sys.argv[2]].meta.update_one({"_id": "versions"}, {"$inc": {"version": 1}}, session=session)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_program_killed_in_a_change_does_not_make_the_next_change_fail(
    mongod: Mongod, mongo_database: str
) -> None:
    """MongoDB ends a killed program's transaction before the next change times out."""
    registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    killed = [sys.executable, "-c", KILLED_IN_A_CHANGE, mongod.uri, mongo_database]
    assert (await asyncio.to_thread(subprocess.run, killed, check=False)).returncode == -signal.SIGKILL
    assert (await registry.identities.enroll(EnrollIdentity("EMP-12345"))).version == 1
    await registry.close()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error of a broker with a taken port shows the broker's own output."""
    first = Mosquitto(tmp_path / "first", free_port()).start()
    second = Mosquitto(tmp_path / "second", first.port, {"other": "password"})
    with pytest.raises(ProgramError, match="Address already in use"):
        second.start()
    first.stop()


def test_a_killed_broker_comes_back_on_its_port(own_mosquitto: Mosquitto) -> None:
    """After kill -9 the same port serves again, with the same users."""
    port = own_mosquitto.port
    own_mosquitto.kill()
    assert not own_mosquitto.program.running
    own_mosquitto.restart()
    assert own_mosquitto.program.running
    assert own_mosquitto.port == port


def test_passwords_lie_hashed_on_disk(own_mosquitto: Mosquitto) -> None:
    """No file of the broker holds a password in clear."""
    files = [file for file in own_mosquitto.folder.iterdir() if file.is_file()]
    assert own_mosquitto.folder / "passwords" in files
    for file in files:
        assert own_mosquitto.users["admin"].encode() not in file.read_bytes()


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    """Kill -9 of the process that started a program ends the program too."""
    script = (
        "from pathlib import Path; from deploy.local.stack import Program\n"
        f"child = Program(['sleep', '600'], Path({str(tmp_path)!r}) / 'child.log'); child.start()\n"
        "print('child', child.pid, flush=True); child.wait(600)"
    )
    parent = Program([sys.executable, "-c", script], tmp_path / "parent.log", {"PYTHONPATH": str(ROOT)})
    parent.start()
    child = int(parent.wait_for_line("^child").split()[1])
    assert psutil.pid_exists(child)
    os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(child), "the child is gone")


def test_a_program_that_ignores_sigterm_is_killed_and_reported(tmp_path: Path) -> None:
    """`stop` fails when the program outlives its deadline, and leaves nothing running."""
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    )
    program = Program([sys.executable, "-c", script], tmp_path / "stubborn.log", name="stubborn")
    program.start()
    program.wait_for_line("up")
    with pytest.raises(ProgramError, match="stubborn has not ended within"):
        program.stop(timeout=0.2)
    assert not program.running


def test_waiting_for_a_line_ends_when_the_program_does(tmp_path: Path) -> None:
    """A program that ends early fails the wait at once; the error shows its output."""
    program = Program([sys.executable, "-c", "raise SystemExit('wrong setting')"], tmp_path / "short.log")
    program.start()
    with pytest.raises(ProgramError, match="wrong setting"):
        program.wait_for_line("ready", timeout=60.0)


def test_settings_of_the_caller_do_not_leak_into_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program gets the WFM_ variables that it is given and no others."""
    monkeypatch.setenv("WFM_MONGO__URI", "mongodb://elsewhere")
    script = "import os; print('seen', sorted(name for name in os.environ if name.startswith('WFM_')))"
    program = Program([sys.executable, "-c", script], tmp_path / "env.log", {"WFM_MQTT__PORT": "1"})
    program.start()
    assert program.wait_for_line("seen", timeout=20.0) == "seen ['WFM_MQTT__PORT']"
    assert program.wait() == 0


def test_a_taken_port_is_not_handed_out(own_mosquitto: Mosquitto) -> None:
    """The preferred port is returned only if no program listens on it."""
    assert free_port(own_mosquitto.port) != own_mosquitto.port
    other = free_port()
    assert free_port(other) == other


def test_two_processes_are_not_given_the_same_port() -> None:
    """A port that was given and is not used yet belongs to its process."""
    port = free_port()
    script = f"from deploy.local.ports import free_port; print(free_port({port}))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(other.stdout) != port
    assert free_port(port) == port
