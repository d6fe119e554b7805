"""SIGHUP reloads a service, and ends a simulation with its drain."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deploy.local.stack import ROOT, Mongod, free_port
from tests.conftest import StartProgram
from tests.waiting import wait_until


def settings(tmp_path: Path, level: str) -> str:
    return json.dumps(
        {
            "device": {
                "id": "cam-1",
                "site": "lobby",
                "data_dir": str(tmp_path / "data"),
                "source": "rtsp://127.0.0.1:9/x",
            },
            "mqtt": {"port": free_port()},
            "log": {"level": level},
        }
    )


def test_a_camera_reloads_its_log_level(tmp_path: Path, start_program: StartProgram) -> None:
    """A mistake changes nothing, and SIGTERM still ends it with status 0."""
    file = tmp_path / "config.json"
    file.write_text(settings(tmp_path, "warning"))
    device = start_program([sys.executable, "-m", "device", "--config", str(file)])
    device.wait_for_line("camera cannot be opened")
    file.write_text("{")
    device.process.send_signal(signal.SIGHUP)
    device.wait_for_line("settings not reloaded; the program goes on as it was error=.*is not JSON")
    file.write_text(settings(tmp_path, "info"))
    device.process.send_signal(signal.SIGHUP)
    device.wait_for_line("INFO .*settings reloaded")
    assert device.stop() == 0


def test_an_api_reloads_the_level_of_its_request_log(
    tmp_path: Path, start_program: StartProgram, mongod: Mongod, mongo_database: str
) -> None:
    """It logs requests at debug only."""
    file = tmp_path / "config.json"
    port = free_port()

    def configure(level: str) -> None:
        mongo = {"uri": mongod.uri, "database": mongo_database}
        file.write_text(json.dumps({"mongo": mongo, "api": {"port": port}, "log": {"level": level}}))

    def logs_requests() -> bool:
        before = api.output().count("GET /healthz")
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        return api.output().count("GET /healthz") > before

    configure("info")
    api = start_program([sys.executable, "-m", "dashboard_api", "--config", str(file)])
    api.wait_for_line("api listening")
    assert not logs_requests()
    configure("debug")
    api.process.send_signal(signal.SIGHUP)
    wait_until(logs_requests, "requests are logged")
    configure("warning")
    api.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not logs_requests(), "requests are logged no more")
    assert api.stop() == 0


def await_ready(notify: socket.socket) -> None:
    """Wait until a program tells systemd's socket that it is ready."""
    notify.settimeout(60)
    while b"READY=1" not in notify.recv(4096):
        pass


def test_bridge_and_api_reload_their_log_level(
    tmp_path: Path, mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """A mistake changes nothing, the level changes at once, and SIGTERM ends both."""
    file = tmp_path / "config.json"

    def write(level: str) -> None:
        mongo = {"uri": mongod.uri, "database": mongo_database}
        api = {"port": port, "photos": False}
        log = {"level": level}
        file.write_text(json.dumps({"mongo": mongo, "api": api, "mqtt": {"port": port}, "log": log}))

    for module in ("broker_bridge", "dashboard_api"):
        port = free_port()
        write("warning")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(tmp_path / module))
            args = [sys.executable, "-m", module, "--config", str(file)]
            program = start_program(args, {"NOTIFY_SOCKET": str(tmp_path / module)}, module)
            await_ready(notify)
            write("loud")
            program.process.send_signal(signal.SIGHUP)
            program.wait_for_line("settings not reloaded; .*log.level: ")
            assert " INFO " not in program.output()
            write("info")
            program.process.send_signal(signal.SIGHUP)
            program.wait_for_line("INFO .*settings reloaded")
            assert program.stop() == 0


def test_bridge_and_api_end_at_a_sigterm_during_their_start(start_program: StartProgram) -> None:
    """A server that takes the connection and never answers does not hold them."""
    for module in ("broker_bridge", "dashboard_api"):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(60)
            environ = {
                "WFM_MONGO__URI": f"mongodb://127.0.0.1:{silent.getsockname()[1]}",
                "WFM_API__PORT": str(free_port()),
            }
            program = start_program([sys.executable, "-m", module], environ, module)
            connection, _ = silent.accept()
            with connection:
                # Nothing is to be drained yet: the end by the signal itself is as clean for systemd.
                assert program.stop(timeout=10) in (0, -signal.SIGTERM)


def test_a_simulation_drains_at_a_hangup(tmp_path: Path, start_program: StartProgram) -> None:
    """It prints its summary, with what still waits."""
    args = ["simulate", "--data-dir", str(tmp_path), "--settle-seconds", "0"]
    simulation = start_program([sys.executable, "-m", "device", *args], {"WFM_MQTT__PORT": str(free_port())})
    simulation.wait_for_line("cannot reach|broker")
    simulation.process.send_signal(signal.SIGHUP)
    assert simulation.wait() == 1
    assert '"pending": ' in simulation.output()


@pytest.mark.parametrize("module", ["broker_bridge", "dashboard_api", "device", "device.embed_worker"])
def test_a_hangup_does_not_end_a_service_that_starts(module: str) -> None:
    """Its imports take seconds; systemd takes an end by SIGHUP for a clean one."""
    main = module if module == "device.embed_worker" else f"{module}.__main__"
    code = (
        "import importlib.abc, os, signal, sys\n"
        "class Hangup(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.meta_path.insert(0, Hangup())\n"
        f"import {main}\n"
        "assert 'typer' in sys.modules\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_camera_on_a_terminal_drains_at_a_hangup(tmp_path: Path) -> None:
    """A closed terminal ends it as SIGTERM does."""
    file = tmp_path / "config.json"
    file.write_text(settings(tmp_path, "info"))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "device", "--config", str(file)], cwd=ROOT, stdin=follower, stderr=follower
    )
    try:
        os.close(follower)
        seen = b""
        while b"cannot be opened" not in seen:
            seen += os.read(leader, 4096)
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
