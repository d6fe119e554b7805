"""`wfm-fleet simulate tracks` runs on a real broker with a played tracker."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from click.testing import Result
from paho.mqtt.enums import CallbackAPIVersion
from pymongo import MongoClient
from typer.testing import CliRunner

from broker_bridge.contract import channels
from broker_bridge.contract.channels import decode
from broker_bridge.contract.messages import Assignment, DeviceInfo, DeviceStatus
from deploy.local.stack import ROOT, Mongod, Mosquitto, free_port
from fleet.__main__ import app
from fleet.tracks.command import make_course
from fleet.tracks.scenario import play_course
from tests.conftest import StartProgram
from tests.integration.fleet.test_command import CTRL_C_ENABLED
from tests.space_limits import limits_variable
from tests.waiting import wait_until

CAMERAS, WALKERS, MINUTES, SEED = 3, 6, 0.2, 4
OPTIONS = [
    "--cameras", str(CAMERAS), "--people", str(WALKERS), "--minutes", str(MINUTES), "--seed", str(SEED),
    "--speed", "5", "--crowd", "4", "--look-alikes", "0.4",
]  # fmt: skip
COURSE = make_course(
    cameras=CAMERAS, walkers=WALKERS, minutes=MINUTES, look_alikes=0.4, crowd=4, overlap=0.15, breaks=0.01,
    loss=0.02, delay_ms=300, clock_skew=60,
)  # fmt: skip
PASSWORD = "secret-of-the-trial"

Decide = Callable[[str, str], int | None]


def truth() -> dict[tuple[str, str], int]:
    """Return the correct global id of each camera and track."""
    played = play_course(COURSE, np.random.default_rng(SEED))
    global_ids = {
        (f"sim-{observation.camera + 1:03}", observation.track_id): observation.walker + 1
        for observation in played
    }
    return global_ids | {(f"sim-{number + 1:03}", "roll-call"): 1000 for number in range(CAMERAS)}


TRUTH = truth()


class PlayedTracker:
    """Play the bridge: answer each observation with `decide`."""

    def __init__(self, broker: Mosquitto) -> None:
        self.decide: Decide = lambda camera, track: TRUTH[camera, track]
        self.ready = threading.Event()
        self.infos: dict[str, DeviceInfo] = {}
        self.states: dict[str, list[str]] = {}
        self.observed = 0
        self.played = 0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "tracker", protocol=mqtt.MQTTv5)
        self._client.username_pw_set("admin", broker.users["admin"])
        self._client.on_connect = lambda client, *_: client.subscribe("wfm/v1/device/+/up/#", 1)
        self._client.on_subscribe = lambda *_: self.ready.set()
        self._client.on_message = self._on_message
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        assert self.ready.wait(10)

    def _on_message(self, client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        decoded = decode(message.topic, bytes(message.payload))
        device_id = decoded.ids["device_id"]
        if isinstance(decoded.message, DeviceInfo):
            self.infos[device_id] = decoded.message
        elif isinstance(decoded.message, DeviceStatus):
            self.states.setdefault(device_id, []).append(decoded.message.state)
        elif decoded.channel is channels.OBSERVATION:
            self.observed += 1
            # A busy machine makes the simulator repeat its roll call.
            self.played += decoded.message.track_id != "roll-call"
            global_id = self.decide(device_id, decoded.message.track_id)
            if global_id is not None:
                answer = Assignment(track_id=decoded.message.track_id, global_id=global_id)
                client.publish(channels.ASSIGNED.topic(device_id=device_id), answer.to_json())

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Start a broker that admits each camera under its own id, with one password."""
    cameras = [f"sim-{number + 1:03}" for number in range(CAMERAS)]
    users = {"admin": "admin-of-the-trial", "bridge": PASSWORD, **dict.fromkeys(cameras, PASSWORD)}
    server = Mosquitto(tmp_path / "broker", free_port(), users, dict.fromkeys(cameras, "lobby")).start()
    yield server
    server.kill()


@pytest.fixture
def tracker(broker: Mosquitto) -> Iterator[PlayedTracker]:
    played = PlayedTracker(broker)
    yield played
    played.stop()


def environment(broker: Mosquitto, password: str = PASSWORD) -> dict[str, str]:
    return {"WFM_MQTT__PORT": str(broker.port), "WFM_MQTT__PASSWORD": password, "COLUMNS": "120"}


def simulate(broker: Mosquitto, *more: str, password: str = PASSWORD) -> Result:
    arguments = ["simulate", "tracks", *OPTIONS, *more]
    return CliRunner().invoke(app, arguments, env=environment(broker, password))


def cell(output: str, name: str) -> str:
    """Return a number of the table."""
    found = re.search(rf"{re.escape(name)}\s*│\s*([\d.]+)", output)
    assert found, output
    return found[1]


def test_a_correct_tracker_scores_1(broker: Mosquitto, tracker: PlayedTracker) -> None:
    """The status is 0; cameras publish their info, `online` and `stopped`."""
    result = simulate(broker, "--require-idf1", "1")
    assert result.exit_code == 0, result.output
    assert cell(result.output, "IDF1") == "1.0000"
    sent = int(cell(result.output, "observations sent"))
    assert sent == int(cell(result.output, "answered"))
    assert tracker.observed >= sent + CAMERAS
    assert set(tracker.infos) == {"sim-001", "sim-002", "sim-003"}
    assert tracker.infos["sim-001"].site_id == "lobby"
    assert tracker.infos["sim-001"].spaces["face:simulated-512"].dimension == 512
    wait_until(
        lambda: all(tracker.states.get(name) == ["online", "stopped"] for name in tracker.infos),
        "every camera says goodbye",
    )


def test_a_tracker_that_merges_all_walkers_ends_with_status_1(
    broker: Mosquitto, tracker: PlayedTracker
) -> None:
    """The table counts the merged id, and --require-idf1 is not met."""
    tracker.decide = lambda camera, track: 7
    result = simulate(broker, "--require-idf1", "0.98")
    assert result.exit_code == 1, result.output
    assert float(cell(result.output, "IDF1")) < 0.6
    assert cell(result.output, "ids that two people have (merged)") == "1"
    assert "required" in result.output


def test_a_wrong_password_is_one_sentence(broker: Mosquitto) -> None:
    """The status is 2, without a traceback."""
    result = simulate(broker, password="wrong")
    assert result.exit_code == 2
    assert "rejects sim-001" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_an_unreachable_broker_is_one_sentence(broker: Mosquitto) -> None:
    """The status is 2, before the course starts."""
    broker.kill()
    result = simulate(broker)
    assert result.exit_code == 2
    assert "cannot be reached" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_lost_broker_leaves_a_table(broker: Mosquitto, tracker: PlayedTracker) -> None:
    """The part that was played is scored, and the status is 2."""

    def kills(camera: str, track: str) -> int:
        if tracker.played == 10:
            threading.Thread(target=broker.kill).start()
        return TRUTH[camera, track]

    tracker.decide = kills
    result = simulate(broker)
    assert result.exit_code == 2, result.output
    assert int(cell(result.output, "observations sent")) >= 10
    assert "ended the connection" in result.output


def test_ctrl_c_leaves_a_table(broker: Mosquitto, tracker: PlayedTracker) -> None:
    """The status is 130, and the cameras publish `stopped`."""
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C_ENABLED, "simulate", "tracks", *OPTIONS],
        cwd=ROOT, env={**os.environ, **environment(broker)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: tracker.played > 5, "some observations came")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert int(cell(output, "observations sent")) >= 5
    assert "stopped" in output
    assert "Traceback" not in output
    wait_until(
        lambda: all(states[-1] == "stopped" for states in tracker.states.values()), "cameras say goodbye"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ["--prefix", "Sim/+"],
        ["--site", "the lobby"],
        ["--space", "faces"],
        ["--speed", "50"],
        ["--minutes", "0.05"],
    ],
)
def test_an_invalid_option_is_refused(broker: Mosquitto, wrong: list[str]) -> None:
    """No camera connects."""
    result = simulate(broker, *wrong)
    assert result.exit_code == 2
    assert wrong[0] in result.output


def test_missing_answers_are_counted(broker: Mosquitto, tracker: PlayedTracker) -> None:
    """No camera waits for them without end."""
    skipped: list[Any] = []

    def skips(camera: str, track: str) -> int | None:
        if camera == "sim-002" and track != "roll-call":
            skipped.append(track)
            return None
        return TRUTH[camera, track]

    tracker.decide = skips
    result = simulate(broker)
    assert result.exit_code == 0, result.output
    sent, answered = (int(cell(result.output, name)) for name in ("observations sent", "answered"))
    assert sent - answered == len(skipped) > 0


def test_the_real_bridge_tracks_the_walkers(
    broker: Mosquitto, mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """The registry then has the detected persons, in the simulated space."""
    bridge = {
        **environment(broker),
        "WFM_MQTT__USERNAME": "bridge",
        "WFM_MONGO__URI": mongod.uri,
        "WFM_MONGO__DATABASE": mongo_database,
        "WFM_BRIDGE__AUTO_REGISTER": "true",
        **dict([limits_variable("face:simulated-512")]),
    }
    program = start_program([sys.executable, "-m", "broker_bridge"], bridge, name="bridge")
    program.wait_for_line("leader election won task=tracker", 30)
    result = simulate(broker, "--look-alikes", "0", "--require-idf1", "0.98")
    assert result.exit_code == 0, result.output
    assert cell(result.output, "observations sent") == cell(result.output, "answered")
    assert cell(result.output, "ids that two people have (merged)") == "0"
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod.uri) as client:
        database = client[mongo_database]
        # The roll call before the course adds one detected person.
        assert database.persons.count_documents({}) == int(cell(result.output, "global ids")) + 1
        assert database.person_faces.distinct("space") == ["face:simulated-512"]


def test_a_missing_extra_is_named(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is 2, with the extra that brings the metrics."""
    for name in ("fleet.tracks.metrics", "fleet.tracks.trial"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "motmetrics", None)
    result = simulate(broker)
    assert result.exit_code == 2
    assert 'pip install ".[simulate]"' in result.output
