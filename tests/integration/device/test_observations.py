"""Cameras send observations over a real broker; a peer plays the tracker."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from broker_bridge.contract import channels
from broker_bridge.contract.channels import decode
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import to_array, to_base64
from broker_bridge.contract.messages import Assignment, Liveness, Observation, SpaceHead, SyncHead
from deploy.local.sample_video import IDENTITIES, SampleVideo, make_sample
from deploy.local.stack import Mosquitto, Program
from device.__main__ import app
from device.bootstrap import sole_owner
from device.store.db_manager import DatabaseManager
from device.vision.drawing import draw
from tests.conftest import FreshDevice
from tests.device_samples import ModelRegistry
from tests.integration.device.conftest import Peer
from tests.liveness_checks import STEADY
from tests.waiting import wait_until

[FIRST_IDENTITY, *_] = IDENTITIES
# The threshold of the trial model.
MIN_SIMILARITY = 0.75


class TrackerPeer(Peer):
    """Answer observations unless silent: the first face gets 41, others follow.

    Global id 41 has the user id `FIRST_IDENTITY`.
    """

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker)
        self.silent = False
        self.vectors: list[np.ndarray] = []
        self.topics: list[str] = []

    def _on_message(self, client: Any, user: Any, message: Any) -> None:
        super()._on_message(client, user, message)
        decoded = decode(message.topic, bytes(message.payload))
        if decoded.channel is channels.OBSERVATION and not self.silent:
            assignment = self._assign(decoded.message)
            self.send(channels.ASSIGNED, assignment, device_id=decoded.ids["device_id"])

    def _assign(self, observation: Observation) -> Assignment:
        vector = to_array(observation.vector)
        similarities = [float(stored @ vector) for stored in self.vectors]
        if not similarities or max(similarities) < MIN_SIMILARITY:
            self.vectors.append(vector)
            similarities.append(1.0)
        nearest = int(np.argmax(similarities))
        return Assignment(
            track_id=observation.track_id,
            global_id=41 + nearest,
            user_id=None if nearest else FIRST_IDENTITY,
            similarity=min(1.0, similarities[nearest]),
        )


@pytest.fixture
def tracker(mosquitto: Mosquitto, fresh_device: FreshDevice) -> Iterator[TrackerPeer]:
    """Run a tracker with the site's head, which a bridge publishes as retained."""
    peer = TrackerPeer(mosquitto)
    with closing(peer):
        peer.start()
        peer.send(channels.SYNC_HEAD, head_of(None), site_id=fresh_device.site)
        yield peer


def head_of(model_sha256: str | None) -> SyncHead:
    space = SpaceHead(count=0, digest="0" * 16, model_sha256=model_sha256)
    return SyncHead(epoch="aa", version=0, horizon=0, spaces={DEFAULT_FACE_SPACE.space: space})


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> SampleVideo:
    """Return a video of two faces, one after the other and then both.

    The second face is in no gallery.
    """
    return make_sample(tmp_path_factory.mktemp("footage"), [IDENTITIES[FIRST_IDENTITY]], cameras=1)[0]


Environment = Callable[..., dict[str, str]]


@pytest.fixture
def environment(mosquitto: Mosquitto, fresh_device: FreshDevice, tmp_path: Path) -> Environment:
    def environment(**more: str) -> dict[str, str]:
        return {
            "WFM_DEVICE__ID": fresh_device.id,
            "WFM_DEVICE__SITE": fresh_device.site,
            "WFM_DEVICE__DATA_DIR": str(tmp_path / "data"),
            "WFM_MQTT__PORT": str(mosquitto.port),
            "WFM_MQTT__USERNAME": fresh_device.id,
            "WFM_MQTT__PASSWORD": fresh_device.password,
            **more,
        }

    return environment


def run_camera(
    start: Callable[..., Program], peer: Peer, device: FreshDevice, env: dict[str, str]
) -> Program:
    """Run a camera to the end of its file."""
    program = start([sys.executable, "-m", "device"], {**env, "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2"})

    def ended() -> bool:
        beats = peer.messages(channels.HEARTBEAT, device.id)
        return bool(beats) and beats[-1].camera == "ended"

    wait_until(ended, "the end of the video", 60.0)
    return program


def test_a_camera_sends_observations_of_known_and_unknown_faces(
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    start_program: Callable[..., Program],
    environment: Environment,
    footage: SampleVideo,
) -> None:
    """It sends one per second and track; the heartbeat counts them.

    No log line has a vector.
    """
    env = environment(
        WFM_DEVICE__SOURCE=str(footage.path),
        WFM_DEVICE__FPS="30",
        WFM_DEVICE__LIVENESS="report",
        WFM_DEVICE__LIVENESS_CHECK=STEADY,
    )
    program = run_camera(start_program, tracker, fresh_device, env)

    def all_counted() -> bool:
        counts = tracker.messages(channels.HEARTBEAT, fresh_device.id)[-1].refusals
        return counts.get("observations_sent") == len(tracker.messages(channels.OBSERVATION, fresh_device.id))

    wait_until(all_counted, "a heartbeat that counts them")
    program.stop()
    wait_until(
        lambda: tracker.messages(channels.STATUS, fresh_device.id)[-1].state == "stopped",
        "the status `stopped`",
    )
    observations = tracker.messages(channels.OBSERVATION, fresh_device.id)
    assert len(tracker.vectors) == 2
    for observation in observations:
        assert observation.space == DEFAULT_FACE_SPACE.space
        assert np.linalg.norm(to_array(observation.vector)) == pytest.approx(1.0, abs=1e-5)
        assert observation.frame_size == [640, 480]
        assert 0 < observation.quality <= 1
        assert observation.liveness == Liveness(score=0.93, method="depth")
        assert to_base64(observation.vector)[:40] not in program.log.read_text()
    tracks = {observation.track_id for observation in observations}
    for track in tracks:
        times = [
            observation.captured_at.timestamp()
            for observation in observations
            if observation.track_id == track
        ]
        assert all(later - earlier >= 0.9 for earlier, later in pairwise(times))


def test_a_camera_with_observations_off_sends_only_events(
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    start_program: Callable[..., Program],
    environment: Environment,
    footage: SampleVideo,
) -> None:
    """Its events come as ever."""
    env = environment(WFM_DEVICE__SOURCE=str(footage.path), WFM_DEVICE__FPS="0")
    env["WFM_DEVICE__OBSERVATIONS"] = "false"
    # A device recognises only after its first sync.
    tracker.registry = ModelRegistry()
    run_camera(start_program, tracker, fresh_device, env).stop()
    wait_until(lambda: tracker.messages(channels.EVENT, fresh_device.id), "an event of an unknown face")
    assert tracker.messages(channels.OBSERVATION, fresh_device.id) == []


Annotate = Callable[..., Result]


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[list[list[str]]]:
    """Return the texts beside the faces, frame by frame."""
    written: list[list[list[str]]] = []

    def record_and_draw(image: Any, notes: Any, *further: Any) -> Any:
        written.append([list(note.lines) for note in notes])
        return draw(image, notes, *further)

    monkeypatch.setattr("device.recordings.annotation.draw", record_and_draw)
    return written


@pytest.fixture
def annotate(
    environment: Environment, footage: SampleVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Annotate:
    """Return a function that annotates the footage on a device with a database.

    The call is `annotate(*options, **environment)`.
    """
    database = DatabaseManager(tmp_path / "data" / "device.db")
    (tmp_path / "data").mkdir()
    database.initialize()
    database.close()
    # The runner closes its standard error after the run.
    monkeypatch.setattr("device.cli.annotate.configure_logging", lambda _: None)

    def annotate(*options: str, **more: str) -> Result:
        for name, value in environment(**more).items():
            monkeypatch.setenv(name, value)
        target = str(tmp_path / "out.mp4")
        return CliRunner().invoke(app, ["annotate", str(footage.path), "-o", target, *options])

    return annotate


def test_the_drawing_shows_global_ids(
    annotate: Annotate,
    labels: list[list[list[str]]],
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    footage: SampleVideo,
) -> None:
    """The label starts at the first good face and has the user id if known."""
    ended = annotate("--ask-tracker")
    assert ended.exit_code == 0, ended.output
    assert f"across cameras: #41 {FIRST_IDENTITY}, #42\n" in ended.output
    assert len(labels) == footage.frames
    global_ids = [line for frame in labels for face in frame for line in face if line.startswith("#")]
    assert set(global_ids) == {f"#41 {FIRST_IDENTITY}", "#42"}
    good_faces = [
        face for frame in labels for face in frame if not any("low_quality" in line for line in face)
    ]
    assert all(face[1].startswith("#") for face in good_faces)
    observations = tracker.messages(channels.OBSERVATION, fresh_device.id)
    # These are seconds of the video, not of the machine's clock.
    seconds = footage.frames / 15
    assert len({observation.track_id for observation in observations}) < len(observations) <= 2 * seconds
    times = sorted({observation.captured_at for observation in observations})
    assert all((b - a).total_seconds() >= 0.149 for a, b in pairwise(times))
    assert tracker.messages(channels.STATUS, fresh_device.id)[-1].state == "stopped"


def test_without_the_option_no_observation_is_sent(
    annotate: Annotate, labels: list[list[list[str]]], tracker: TrackerPeer, fresh_device: FreshDevice
) -> None:
    """Drawing without global ids needs no network."""
    ended = annotate()
    assert ended.exit_code == 0, ended.output
    assert "across cameras" not in ended.output
    assert not [line for frame in labels for face in frame for line in face if line.startswith("#")]
    assert tracker.messages(channels.STATUS, fresh_device.id) == []


def test_the_drawing_continues_without_a_tracker(
    annotate: Annotate,
    labels: list[list[list[str]]],
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    footage: SampleVideo,
) -> None:
    """After some seconds one sentence is printed and no more observations are sent."""
    tracker.silent = True
    ended = annotate("--ask-tracker")
    assert ended.exit_code == 0, ended.output
    assert ended.output.count("goes on without global ids") == 1
    assert "no tracker answers" in ended.output
    assert len(labels) == footage.frames
    assert (
        len(
            {
                observation.captured_at
                for observation in tracker.messages(channels.OBSERVATION, fresh_device.id)
            }
        )
        == 1
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"WFM_MQTT__PORT": "1"}, "the broker at 127.0.0.1:1 cannot be reached"),
        ({"WFM_MQTT__PASSWORD": "another"}, "refuses this device"),
    ],
)
def test_the_drawing_continues_without_a_broker(
    annotate: Annotate,
    labels: list[list[list[str]]],
    footage: SampleVideo,
    changes: dict[str, str],
    sentence: str,
) -> None:
    """One sentence is printed at the start."""
    ended = annotate("--ask-tracker", **changes)
    assert ended.exit_code == 0, ended.output
    assert sentence in ended.output
    assert ended.output.count("goes on without global ids") == 1
    assert len(labels) == footage.frames


def test_the_drawing_continues_when_the_broker_disconnects(
    annotate: Annotate, labels: list[list[list[str]]], footage: SampleVideo, own_mosquitto: Mosquitto
) -> None:
    """The lookup ends at once instead of one timeout per face."""

    class Saboteur(TrackerPeer):
        def _assign(self, observation: Observation) -> Assignment:
            own_mosquitto.kill()
            return super()._assign(observation)

    with closing(Saboteur(own_mosquitto)) as peer:
        peer.start()
        login = {"WFM_MQTT__USERNAME": "cam-001", "WFM_MQTT__PASSWORD": own_mosquitto.users["cam-001"]}
        device = {"WFM_DEVICE__ID": "cam-001", "WFM_DEVICE__SITE": "lobby"}
        ended = annotate("--ask-tracker", WFM_MQTT__PORT=str(own_mosquitto.port), **login, **device)
    assert ended.exit_code == 0, ended.output
    assert f"the connection to the broker at 127.0.0.1:{own_mosquitto.port} is gone" in ended.output
    assert ended.output.count("goes on without global ids") == 1
    assert len(labels) == footage.frames


def test_a_model_unlike_the_registrys_sends_no_observation(
    annotate: Annotate, tracker: TrackerPeer, fresh_device: FreshDevice
) -> None:
    """The retained head of the site has the registry's model."""
    tracker.send(channels.SYNC_HEAD, head_of("9c" * 32), site_id=fresh_device.site)
    ended = annotate("--ask-tracker")
    assert ended.exit_code == 0, ended.output
    assert "match no other vectors: the model file for face:resnet29-512 is" in ended.output
    assert tracker.messages(channels.OBSERVATION, fresh_device.id) == []


@pytest.mark.parametrize("options", [["--ask-tracker"], []])
def test_drawing_does_not_disconnect_a_running_device(
    annotate: Annotate, tracker: TrackerPeer, tmp_path: Path, options: list[str]
) -> None:
    """Two connections with one id end each other; drawing alone needs none."""
    with sole_owner(tmp_path / "data"):
        ended = annotate(*options)
    assert ended.exit_code == (2 if options else 0)
    assert ("another device runs on this folder" in ended.output) == bool(options)


def test_a_device_with_observations_off_refuses_the_option(annotate: Annotate, tracker: TrackerPeer) -> None:
    """The setting covers every way in which a vector could leave the device."""
    ended = annotate("--ask-tracker", WFM_DEVICE__OBSERVATIONS="false")
    assert ended.exit_code == 2
    assert "device.observations is false" in ended.output
