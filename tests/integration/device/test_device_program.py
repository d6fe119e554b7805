"""Run `python -m device` as an operator starts it, on a real broker."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.embeddings import to_base64
from broker_bridge.contract.messages import Upsert, WireTemplate
from broker_bridge.contract.wire import decode_image
from deploy.local.sample_video import IDENTITIES, enrollment_photo, make_sample
from deploy.local.stack import Mosquitto, Program
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder
from tests.conftest import FreshDevice
from tests.device_samples import ModelRegistry, event
from tests.integration.device.conftest import Peer
from tests.waiting import wait_until

StartProgram = Callable[..., Program]
PYTHON = [sys.executable, "-m", "device"]


def environment(broker: Mosquitto, user: str, **more: str) -> dict[str, str]:
    return {
        "WFM_MQTT__PORT": str(broker.port),
        "WFM_MQTT__USERNAME": user,
        "WFM_MQTT__PASSWORD": broker.users[user],
        **more,
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((120, 160, 3), 60 * n, dtype=np.uint8))
    return folder


def camera(broker: Mosquitto, device: FreshDevice, pictures: Path, data: Path) -> dict[str, str]:
    return environment(
        broker,
        device.id,
        WFM_DEVICE__ID=device.id,
        WFM_DEVICE__SITE=device.site,
        WFM_DEVICE__DATA_DIR=str(data),
        WFM_DEVICE__SOURCE=str(pictures),
        WFM_LOG__FORMAT="json",
    )


def test_a_camera_stays_connected_after_its_file_until_sigterm(
    mosquitto: Mosquitto,
    peer: Peer,
    fresh_device: FreshDevice,
    start_program: StartProgram,
    pictures: Path,
    tmp_path: Path,
) -> None:
    """The heartbeat has the states of device, camera and machine.

    SIGTERM ends the program cleanly within eight seconds.
    """
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    program = start_program(PYTHON, {**env, "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2"})

    def ended() -> bool:
        beats = peer.messages(channels.HEARTBEAT, fresh_device.id)
        return bool(beats) and beats[-1].camera == "ended"

    wait_until(ended, "a heartbeat with the end of the file", 30.0)
    beat = peer.messages(channels.HEARTBEAT, fresh_device.id)[-1]
    assert beat.memory_mb is not None
    assert beat.disk_free_mb is not None
    assert beat.outbox_depth == 0
    assert program.running

    started = time.monotonic()
    program.stop()
    assert time.monotonic() - started < 8.0
    assert peer.messages(channels.STATUS, fresh_device.id)[-1].state == "stopped"
    for line in program.log.read_text().splitlines():
        assert {"at", "level", "logger", "message"} <= set(json.loads(line))


def test_a_known_face_makes_one_event_and_unknown_faces_others(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_program: StartProgram, tmp_path: Path
) -> None:
    """A device enrolls over the wire, recognises, sends a picture and gets a receipt."""
    space = "face:resnet29-512"
    [user_id, other_id] = list(IDENTITIES)[:2]
    photo = enrollment_photo(IDENTITIES[user_id])
    face = PhotoEmbedder(load_detector(), load_embedder()).embed_photo(photo)
    template = WireTemplate(template_id="photo", space=space, vector=face.vector, quality=face.quality)
    registry = peer.registry = ModelRegistry()
    registry.version = 1
    registry.people[user_id] = Upsert(user_id=user_id, version=1, templates=[template])
    [video] = make_sample(tmp_path, [IDENTITIES[user_id], IDENTITIES[other_id]], cameras=1)
    env = camera(mosquitto, fresh_device, video.path, tmp_path / "data")
    env["WFM_DEVICE__HEARTBEAT_SECONDS"] = "0.2"
    program = start_program(PYTHON, {**env, "WFM_DEVICE__FPS": "0"})

    def finished() -> bool:
        beats = peer.messages(channels.HEARTBEAT, fresh_device.id)
        return bool(beats) and beats[-1].camera == "ended" and beats[-1].outbox_depth == 0

    wait_until(finished, "the end of the video", 60.0)
    program.stop()

    events = peer.messages(channels.EVENT, fresh_device.id)
    [recognition] = [event for event in events if event.event_type == "facial_id"]
    assert recognition.user_id == user_id
    unknown = [event for event in events if event.event_type == "unknown"]
    # At full speed two unknown faces in one place may become one track.
    assert len(unknown) == len(events) - 1
    assert len(unknown) in (1, 2)
    assert recognition.metadata["gallery_version"] == 1
    assert decode_image(recognition.image)
    log = program.log.read_text()
    assert recognition.image[:40] not in log
    assert to_base64(face.vector)[:40] not in log


def test_exit_at_end_ends_with_the_file(
    mosquitto: Mosquitto, fresh_device: FreshDevice, pictures: Path, tmp_path: Path
) -> None:
    """The option is for runs that only process a file."""
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    finished = run(["--exit-at-end"], env)
    assert finished.returncode == 0


def run(args: list[str], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PYTHON, *args], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_wrong_settings_end_with_a_sentence_each() -> None:
    """The status is 2, without a traceback."""
    wrong = {"WFM_DEVICE__ID": "Not An Id", "WFM_MQTT__PORT": "70000", "WFM_DEVICE__LIVENESS": "require"}
    finished = run([], wrong)
    assert finished.returncode == 2
    assert "WFM_DEVICE__ID" in finished.stderr
    assert "WFM_DEVICE__SITE" in finished.stderr
    assert "WFM_MQTT__PORT" in finished.stderr
    assert "liveness-missing: 'require' needs a liveness check" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("WFM_DEVICE__DATA_DIR", "{file}", "WFM_DEVICE__DATA_DIR"),
        ("WFM_DEVICE__DATA_DIR", "{file}/below", "WFM_DEVICE__DATA_DIR"),
        ("WFM_DEVICE__SOURCE", "0", "cannot be repeated"),
        ("WFM_MQTT__CA_FILE", "/nowhere/ca.pem", "/nowhere/ca.pem cannot be used (No such file"),
        ("WFM_MQTT__CA_FILE", "{file}", "not a PEM file"),
    ],
)
def test_a_mistake_of_the_operator_ends_the_program_with_a_sentence(
    tmp_path: Path, setting: str, value: str, sentence: str
) -> None:
    """There is no traceback and no log line that repeats every few seconds."""
    file = tmp_path / "file"
    file.write_text("hello")
    env = {
        "WFM_DEVICE__ID": "cam-001",
        "WFM_DEVICE__SITE": "lobby",
        "WFM_DEVICE__DATA_DIR": str(tmp_path / "data"),
        "WFM_DEVICE__LOOP": "true",
    }
    finished = run([], {**env, setting: value.format(file=file)})
    assert finished.returncode == 2
    assert sentence in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "arguments", [["--config", "FILE", "rejected", "list"], ["rejected", "list", "--config", "FILE"]]
)
def test_the_configuration_may_stand_before_a_command_or_after_it(
    tmp_path: Path, arguments: list[str]
) -> None:
    """An option that is silently ignored would use another device's folder."""
    file = tmp_path / "config.json"
    section = {"id": "cam-001", "site": "lobby", "data_dir": str(tmp_path / "here")}
    file.write_text(json.dumps({"device": section}))
    listed = run([str(file) if argument == "FILE" else argument for argument in arguments], {})
    assert f"{tmp_path / 'here'}/device.db: does not exist" in listed.stderr


def test_listing_rejected_events_creates_no_database(tmp_path: Path) -> None:
    """A mistyped folder must not look like a device without rejected events."""
    env = {
        "WFM_DEVICE__ID": "cam-001",
        "WFM_DEVICE__SITE": "lobby",
        "WFM_DEVICE__DATA_DIR": str(tmp_path / "mistyped"),
    }
    listed = run(["rejected", "list"], env)
    assert listed.returncode == 2
    assert "does not exist" in listed.stderr
    assert not (tmp_path / "mistyped").exists()


def test_two_devices_do_not_share_one_folder(
    mosquitto: Mosquitto,
    fresh_device: FreshDevice,
    start_program: StartProgram,
    pictures: Path,
    tmp_path: Path,
    peer: Peer,
) -> None:
    """Both would send every event."""
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    start_program(PYTHON, env)
    wait_until(lambda: peer.messages(channels.STATUS, fresh_device.id), "the first is online", 30.0)
    second = run([], env)
    assert second.returncode == 2
    assert "another device runs on this folder" in second.stderr


def test_a_killed_simulator_loses_no_event_of_its_ledger(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_program: StartProgram, tmp_path: Path
) -> None:
    """After SIGKILL and a restart on the same folder every ledger event arrives."""
    ledger, data = tmp_path / "ledger", tmp_path / "data"
    prefix = fresh_device.id
    args = [*PYTHON, "simulate", "--devices", "2", "--prefix", prefix, "--ledger", str(ledger)]
    args += ["--data-dir", str(data), "--image-kb", "5"]
    # The broker allows `admin` to write for both devices; a device may write only for itself.
    env = environment(mosquitto, "admin")
    peer.gives_receipts = False
    first = start_program([*args, "--rate", "0"], env)
    wait_until(lambda: len(peer.messages(channels.EVENT, f"{prefix}-001")) >= 20, "a stream", 30.0)
    first.kill()

    peer.gives_receipts = True
    second = run([*args[3:], "--rate", "100", "--count", "10"], env)

    summary = json.loads(second.stdout)
    assert second.returncode == 0
    assert (summary["events"], summary["pending"], summary["rejected"]) == (10, 0, 0)
    written = set(ledger.read_text().split())
    arrived = {event.event_id for n in (1, 2) for event in peer.messages(channels.EVENT, f"{prefix}-00{n}")}
    assert len(written) > 30
    assert written <= arrived


def test_rejected_events_can_be_listed_and_requeued(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, tmp_path: Path, pictures: Path
) -> None:
    """The commands work from a second shell."""
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    assert run(["--exit-at-end"], env).returncode == 0
    database = tmp_path / "data" / "device.db"
    refused = event(1, fresh_device.id)
    with sqlite3.connect(database) as writer:
        writer.execute(
            "INSERT INTO rejected (event_id, body, code, detail, rejected_at) VALUES (?, ?, ?, ?, ?)",
            (
                refused.event_id,
                refused.to_json(),
                "event-invalid",
                "no such user",
                "2026-01-15T12:00:00.000Z",
            ),
        )
    listed = run(["rejected", "list"], env)
    assert listed.stdout.split() == [
        refused.event_id, "event-invalid", "2026-01-15T12:00:00.000Z", "no", "such", "user",
    ]  # fmt: skip
    assert "1 events" in run(["rejected", "requeue"], env).stdout
    assert run(["rejected", "list"], env).stdout == ""

    assert run(["--exit-at-end"], env).returncode == 0
    assert {event.event_id for event in peer.messages(channels.EVENT, fresh_device.id)} == {refused.event_id}
