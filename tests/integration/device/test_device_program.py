"""`python -m device` as an operator starts it, on a real broker."""

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
from device.vision.detectors.cascade import CascadeDetector
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


def test_a_camera_whose_file_ends_stays_connected_until_sigterm(
    mosquitto: Mosquitto,
    peer: Peer,
    fresh_device: FreshDevice,
    start_program: StartProgram,
    pictures: Path,
    tmp_path: Path,
) -> None:
    """It tells its state, its camera's and its machine's, and ends in good order well within ten seconds."""
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    program = start_program(PYTHON, {**env, "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2"})

    def ended() -> bool:
        beats = peer.of(channels.HEARTBEAT, fresh_device.id)
        return bool(beats) and beats[-1].camera == "ended"

    wait_until(ended, "a heartbeat that says so", 30.0)
    beat = peer.of(channels.HEARTBEAT, fresh_device.id)[-1]
    assert beat.memory_mb is not None
    assert beat.disk_free_mb is not None
    assert beat.outbox_depth == 0
    assert program.running

    began = time.monotonic()
    program.stop()
    assert time.monotonic() - began < 8.0
    assert peer.of(channels.STATUS, fresh_device.id)[-1].state == "stopped"
    for line in program.log.read_text().splitlines():
        assert {"at", "level", "logger", "message"} <= set(json.loads(line))


def test_a_known_face_on_video_becomes_one_event_and_strangers_unknown_ones(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_program: StartProgram, tmp_path: Path
) -> None:
    """The whole line of a device: enrolled over the wire, seen, sent with a picture, settled."""
    space = "face:gabor-512"
    [user_id, other_id] = list(IDENTITIES)[:2]
    photo = enrollment_photo(IDENTITIES[user_id])
    face = PhotoEmbedder(CascadeDetector(), load_embedder()).embed_photo(photo)
    template = WireTemplate(template_id="photo", space=space, vector=face.vector, quality=face.quality)
    registry = peer.registry = ModelRegistry()
    registry.version = 1
    registry.people[user_id] = Upsert(user_id=user_id, version=1, templates=[template])
    [video] = make_sample(tmp_path, [IDENTITIES[user_id], IDENTITIES[other_id]], cameras=1)
    env = camera(mosquitto, fresh_device, video.path, tmp_path / "data")
    env["WFM_DEVICE__HEARTBEAT_SECONDS"] = "0.2"
    program = start_program(PYTHON, {**env, "WFM_DEVICE__FPS": "0"})

    def seen_through() -> bool:
        beats = peer.of(channels.HEARTBEAT, fresh_device.id)
        return bool(beats) and beats[-1].camera == "ended" and beats[-1].outbox_depth == 0

    wait_until(seen_through, "the end of the video", 60.0)
    program.stop()

    events = peer.of(channels.EVENT, fresh_device.id)
    [seen] = [one for one in events if one.event_type == "facial_id"]
    assert seen.user_id == user_id
    strangers = [one for one in events if one.event_type == "unknown"]
    # Played without pauses, two strangers who follow each other at one place may be one track.
    assert len(strangers) == len(events) - 1
    assert len(strangers) in (1, 2)
    assert seen.metadata["gallery_version"] == 1
    assert decode_image(seen.image)
    log = program.log.read_text()
    assert seen.image[:40] not in log
    assert to_base64(face.vector)[:40] not in log


def test_exit_at_end_ends_with_the_file(
    mosquitto: Mosquitto, fresh_device: FreshDevice, pictures: Path, tmp_path: Path
) -> None:
    """For runs that only want to see a file through."""
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    finished = run(["--exit-at-end"], env)
    assert finished.returncode == 0


def run(args: list[str], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PYTHON, *args], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_wrong_settings_end_with_a_sentence_each() -> None:
    """And status 2, without a traceback."""
    finished = run([], {"WFM_DEVICE__ID": "Not An Id", "WFM_MQTT__PORT": "70000"})
    assert finished.returncode == 2
    assert "WFM_DEVICE__ID" in finished.stderr
    assert "WFM_DEVICE__SITE" in finished.stderr
    assert "WFM_MQTT__PORT" in finished.stderr
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
def test_what_an_operator_can_mend_ends_the_program_with_a_sentence(
    tmp_path: Path, setting: str, value: str, sentence: str
) -> None:
    """Not with a traceback, and not with a line in the log every few seconds."""
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
    "order", [["--config", "FILE", "rejected", "list"], ["rejected", "list", "--config", "FILE"]]
)
def test_the_configuration_may_stand_before_a_command_or_after_it(tmp_path: Path, order: list[str]) -> None:
    """An option that is silently not read would show another device's folder."""
    file = tmp_path / "config.json"
    section = {"id": "cam-001", "site": "lobby", "data_dir": str(tmp_path / "here")}
    file.write_text(json.dumps({"device": section}))
    listed = run([str(file) if word == "FILE" else word for word in order], {})
    assert f"{tmp_path / 'here'}/device.db: does not exist" in listed.stderr


def test_looking_at_rejected_events_makes_no_database(tmp_path: Path) -> None:
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
    """They would send everything twice."""
    env = camera(mosquitto, fresh_device, pictures, tmp_path / "data")
    start_program(PYTHON, env)
    wait_until(lambda: peer.of(channels.STATUS, fresh_device.id), "the first is online", 30.0)
    second = run([], env)
    assert second.returncode == 2
    assert "another device runs on this folder" in second.stderr


def test_a_simulator_that_is_killed_loses_nothing_that_its_ledger_names(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_program: StartProgram, tmp_path: Path
) -> None:
    """Kill -9 in the middle, then the same data folder again: every event in the ledger arrives."""
    ledger, data = tmp_path / "ledger", tmp_path / "data"
    prefix = fresh_device.id
    args = [*PYTHON, "simulate", "--devices", "2", "--prefix", prefix, "--ledger", str(ledger)]
    args += ["--data-dir", str(data), "--image-kb", "5"]
    # `admin` may write for both; a device of the fleet only for itself.
    env = environment(mosquitto, "admin")
    peer.gives_receipts = False
    first = start_program([*args, "--rate", "0"], env)
    wait_until(lambda: len(peer.of(channels.EVENT, f"{prefix}-001")) >= 20, "a stream", 30.0)
    first.kill()

    peer.gives_receipts = True
    second = run([*args[3:], "--rate", "100", "--count", "10"], env)

    summary = json.loads(second.stdout)
    assert second.returncode == 0
    assert (summary["events"], summary["pending"], summary["rejected"]) == (10, 0, 0)
    written = set(ledger.read_text().split())
    arrived = {one.event_id for n in (1, 2) for one in peer.of(channels.EVENT, f"{prefix}-00{n}")}
    assert len(written) > 30
    assert written <= arrived


def test_rejected_events_can_be_listed_and_put_back_in_line(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, tmp_path: Path, pictures: Path
) -> None:
    """From a second shell."""
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
    assert [one.event_id for one in peer.of(channels.EVENT, fresh_device.id)] == [refused.event_id]
