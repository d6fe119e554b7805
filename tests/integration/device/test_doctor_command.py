"""`wfm-device doctor` examines a device with a real broker."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from broker_bridge.contract import channels
from deploy.local.stack import Mosquitto, free_port
from device.bootstrap import sole_owner
from device.cli.doctor import doctor
from tests.conftest import FreshDevice, StartProgram
from tests.integration.device.conftest import Peer
from tests.integration.test_production_broker import certificates, openssl, port  # noqa: F401  # fixtures
from tests.networks import save_arcface_like, save_record
from tests.waiting import wait_until

Run = Callable[..., Result]


@pytest.fixture
def run() -> Iterator[Run]:
    """Run the command in this process, then restore its logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    app = typer.Typer()
    app.command()(doctor)
    yield lambda env, *args: CliRunner().invoke(app, args, env=env)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def device(mosquitto: Mosquitto, fresh_device: FreshDevice, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a sound device."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(3):
        cv2.imwrite(str(pictures / f"{n}.png"), np.full((120, 160, 3), 90, np.uint8))
    return {
        "WFM_MQTT__PORT": str(mosquitto.port),
        "WFM_MQTT__USERNAME": fresh_device.id,
        "WFM_MQTT__PASSWORD": fresh_device.password,
        "WFM_DEVICE__ID": fresh_device.id,
        "WFM_DEVICE__SITE": fresh_device.site,
        "WFM_DEVICE__DATA_DIR": str(tmp_path / "data"),
        "WFM_DEVICE__SOURCE": str(pictures),
        "WFM_DEVICE__MODEL": str(save_record(save_arcface_like(tmp_path / "mine.onnx"))),
    }


def test_a_sound_device_ends_with_status_0(run: Run, device: dict[str, str]) -> None:
    """The output has one line per check, a table of times and a summary."""
    result = run(device)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    checks = (
        "versions",
        "model",
        "limits",
        "providers",
        "canary",
        "detector",
        "camera",
        "disk",
        "clock",
        "broker",
    )
    for name, line in zip((*checks, "stages"), lines, strict=False):
        assert line.split()[:2] == ["ok", name], line
    for stage in ("detect", "align", "quality", "embed", "match", "together"):
        assert any(line.split()[:1] == [stage] for line in lines)
    assert "login takes" in result.stdout
    assert lines[-1] == "no fault, 0 warnings"


def test_json_is_one_document_with_the_same_facts(run: Run, device: dict[str, str]) -> None:
    """Other output goes to standard error."""
    document = json.loads(run(device, "--json", "--no-camera", "--frames", "0").stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert (document["faults"], document["warnings"]) == (0, 0)
    assert checks["camera"]["state"] == "skipped"
    assert checks["canary"]["values"]["passed"] is True
    assert checks["broker"]["values"]["login_ms"] > 0
    assert document["times"]["frames_per_second"] > 0


def test_a_wrong_password_and_a_dead_broker_are_faults(run: Run, device: dict[str, str]) -> None:
    """The status is 1, with one sentence each and no password."""
    wrong = run({**device, "WFM_MQTT__PASSWORD": "hunter2-hunter2"}, "--no-camera")
    assert wrong.exit_code == 1
    assert "does not authorize this client (broker-denied) -> check WFM_MQTT__USERNAME" in wrong.stdout
    assert "hunter2" not in wrong.output
    assert wrong.stdout.splitlines()[-1].startswith("1 fault, 0 warnings")

    dead = run({**device, "WFM_MQTT__PORT": str(free_port())}, "--no-camera")
    assert dead.exit_code == 1
    assert "nothing listens" in dead.stdout


def test_doctor_does_not_disturb_a_running_device(
    run: Run, device: dict[str, str], peer: Peer, start_program: StartProgram
) -> None:
    """It does not log in a second time and takes no lock."""
    device_id = device["WFM_DEVICE__ID"]
    program = start_program(
        [sys.executable, "-m", "device"], {**device, "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2"}
    )
    wait_until(lambda: peer.messages(channels.STATUS, device_id), "online", 30.0)
    result = run(device)
    assert result.exit_code == 0, result.output
    assert "login not tried: a device runs" in result.stdout
    assert "a device runs on it" in result.stdout

    beats = len(peer.messages(channels.HEARTBEAT, device_id))
    wait_until(lambda: len(peer.messages(channels.HEARTBEAT, device_id)) > beats, "it is still there")
    assert program.running
    assert [status.state for status in peer.messages(channels.STATUS, device_id)] == ["online"]


def test_invalid_settings_end_with_a_sentence_each_and_status_2(run: Run) -> None:
    """The sentences equal those of `run`."""
    result = run({"WFM_DEVICE__ID": "Not An Id", "WFM_MQTT__PORT": "70000"})
    assert result.exit_code == 2
    for name in ("WFM_DEVICE__ID", "WFM_DEVICE__SITE", "WFM_MQTT__PORT"):
        assert name in result.stderr


@pytest.fixture
def secured(device: dict[str, str], certificates: Path, port: int) -> dict[str, str]:  # noqa: F811
    """Return the environment of the device at a broker that requires certificates."""
    files = {"CA_FILE": "ca.crt", "CERT_FILE": "cam-001.crt", "KEY_FILE": "cam-001.key"}
    kept = {name: value for name, value in device.items() if not name.startswith("WFM_MQTT__")}
    return {
        **kept,
        **{f"WFM_MQTT__{name}": str(certificates / file) for name, file in files.items()},
        "WFM_MQTT__PORT": str(port),
        "WFM_DEVICE__ID": "cam-001",
    }


def broker_of(result: Result) -> dict[str, str]:
    checks = json.loads(result.stdout)["checks"]
    return next(check for check in checks if check["name"] == "broker")


def test_certificates_are_accepted_and_their_expiry_is_reported(run: Run, secured: dict[str, str]) -> None:
    """An expiry in two days is a warning."""
    broker = broker_of(run(secured, "--no-camera", "--json"))
    assert broker["state"] == "warning"
    assert broker["values"]["tls_version"] == "TLSv1.3"
    assert broker["values"]["login_ms"] > 0
    assert "its certificate lasts until" in broker["detail"]
    assert "this device's until" in broker["detail"]


@pytest.mark.parametrize("in_use", [False, True])
def test_an_untrusted_certificate_is_reported_with_and_without_login(
    run: Run,
    secured: dict[str, str],
    tmp_path: Path,
    in_use: bool,
) -> None:
    """TLS 1.3 reports it after the client's handshake."""
    openssl(
        tmp_path,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.crt "
        "-subj /CN=cam-001 -days 90",
    )
    own = {"WFM_MQTT__CERT_FILE": str(tmp_path / "own.crt"), "WFM_MQTT__KEY_FILE": str(tmp_path / "own.key")}
    data_dir = Path(secured["WFM_DEVICE__DATA_DIR"])
    with sole_owner(data_dir) if in_use else nullcontext():
        result = run({**secured, **own}, "--no-camera", "--json")
    assert result.exit_code == 1
    assert "rejects this device's certificate" in broker_of(result)["detail"]


def test_a_missing_certificate_is_reported(run: Run, secured: dict[str, str]) -> None:
    """The advice names the settings."""
    bare = {name: value for name, value in secured.items() if not name.endswith(("CERT_FILE", "KEY_FILE"))}
    broker = broker_of(run(bare, "--no-camera", "--json"))
    assert broker["state"] == "fault"
    assert "WFM_MQTT__CERT_FILE" in broker["advice"]
