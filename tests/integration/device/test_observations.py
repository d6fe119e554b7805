"""Cameras that tell the tracker of faces, on a real broker; a peer plays the tracker."""

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
from broker_bridge.contract.embeddings import to_array, to_base64
from broker_bridge.contract.messages import Assignment, Observation, SpaceHead, SyncHead
from deploy.local.sample_video import IDENTITIES, SampleVideo, make_sample
from deploy.local.stack import Mosquitto, Program
from device.__main__ import app
from device.bootstrap import sole_owner
from device.store.db_manager import DatabaseManager
from device.vision import gabor
from device.vision.drawing import draw
from tests.conftest import FreshDevice
from tests.device_samples import ModelRegistry
from tests.integration.device.conftest import Peer
from tests.waiting import wait_until

[SOMEBODY, *_] = IDENTITIES
# The trial model's: nearer than this is the same person.
SAME_PERSON = 0.75


class TrackerPeer(Peer):
    """Answers observations: who was seen first is #41 and `SOMEBODY`, others follow; or keeps silent."""

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
        like = [float(known @ vector) for known in self.vectors]
        if not like or max(like) < SAME_PERSON:
            self.vectors.append(vector)
            like.append(1.0)
        nearest = int(np.argmax(like))
        return Assignment(
            track_id=observation.track_id,
            global_id=41 + nearest,
            user_id=None if nearest else SOMEBODY,
            similarity=min(1.0, like[nearest]),
        )


@pytest.fixture
def tracker(mosquitto: Mosquitto, fresh_device: FreshDevice) -> Iterator[TrackerPeer]:
    """With the site's head, as a bridge has it retained."""
    peer = TrackerPeer(mosquitto)
    with closing(peer):
        peer.start()
        peer.send(channels.SYNC_HEAD, head_of(None), site_id=fresh_device.site)
        yield peer


def head_of(model_sha256: str | None) -> SyncHead:
    space = SpaceHead(count=0, digest="0" * 16, model_sha256=model_sha256)
    return SyncHead(epoch="aa", version=0, horizon=0, spaces={gabor.SPACE_ID: space})


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> SampleVideo:
    """Two people, one after the other and then both; the second is unknown to everybody."""
    return make_sample(tmp_path_factory.mktemp("footage"), [IDENTITIES[SOMEBODY]], cameras=1)[0]


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
    """A camera that has seen its file to the end."""
    program = start([sys.executable, "-m", "device"], {**env, "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2"})

    def ended() -> bool:
        beats = peer.of(channels.HEARTBEAT, device.id)
        return bool(beats) and beats[-1].camera == "ended"

    wait_until(ended, "the end of the video", 60.0)
    return program


def test_a_camera_tells_of_everybody_it_sees_also_of_strangers(
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    start_program: Callable[..., Program],
    environment: Environment,
    footage: SampleVideo,
) -> None:
    """By the contract, once a second a track; the heartbeat counts it, and no log has a vector."""
    env = environment(WFM_DEVICE__SOURCE=str(footage.path), WFM_DEVICE__FPS="30")
    program = run_camera(start_program, tracker, fresh_device, env)

    def all_counted() -> bool:
        counts = tracker.of(channels.HEARTBEAT, fresh_device.id)[-1].refusals
        return counts.get("observations_sent") == len(tracker.of(channels.OBSERVATION, fresh_device.id))

    wait_until(all_counted, "a heartbeat that counts them")
    program.stop()
    wait_until(
        lambda: tracker.of(channels.STATUS, fresh_device.id)[-1].state == "stopped", "the camera's goodbye"
    )
    told = tracker.of(channels.OBSERVATION, fresh_device.id)
    assert len(tracker.vectors) == 2
    for one in told:
        assert one.space == gabor.SPACE_ID
        assert np.linalg.norm(to_array(one.vector)) == pytest.approx(1.0, abs=1e-5)
        assert one.frame_size == [640, 480]
        assert 0 < one.quality <= 1
        assert to_base64(one.vector)[:40] not in program.log.read_text()
    tracks = {one.track_id for one in told}
    for track in tracks:
        times = [one.captured_at.timestamp() for one in told if one.track_id == track]
        assert all(later - earlier >= 0.9 for earlier, later in pairwise(times))


def test_a_camera_whose_observations_are_off_tells_of_nobody(
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    start_program: Callable[..., Program],
    environment: Environment,
    footage: SampleVideo,
) -> None:
    """Its events come as ever."""
    env = environment(WFM_DEVICE__SOURCE=str(footage.path), WFM_DEVICE__FPS="0")
    env["WFM_DEVICE__OBSERVATIONS"] = "false"
    # Who has never synced recognises nobody.
    tracker.registry = ModelRegistry()
    run_camera(start_program, tracker, fresh_device, env).stop()
    wait_until(lambda: tracker.of(channels.EVENT, fresh_device.id), "an event of a stranger")
    assert tracker.of(channels.OBSERVATION, fresh_device.id) == []


Annotate = Callable[..., Result]


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[list[list[str]]]:
    """What is written beside the faces, frame by frame."""
    written: list[list[list[str]]] = []

    def watched(image: Any, notes: Any, *rest: Any) -> Any:
        written.append([list(note.lines) for note in notes])
        return draw(image, notes, *rest)

    monkeypatch.setattr("device.recordings.annotation.draw", watched)
    return written


@pytest.fixture
def annotate(
    environment: Environment, footage: SampleVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Annotate:
    """`annotate(*options, **environment)` on the footage, as a device that has run before."""
    database = DatabaseManager(tmp_path / "data" / "device.db")
    (tmp_path / "data").mkdir()
    database.initialize()
    database.close()
    # The runner's standard error ends with its run.
    monkeypatch.setattr("device.cli.annotate.configure_logging", lambda _: None)

    def annotate(*options: str, **more: str) -> Result:
        for name, value in environment(**more).items():
            monkeypatch.setenv(name, value)
        target = str(tmp_path / "out.mp4")
        return CliRunner().invoke(app, ["annotate", str(footage.path), "-o", target, *options])

    return annotate


def test_the_drawing_shows_who_somebody_is_across_cameras(
    annotate: Annotate,
    labels: list[list[list[str]]],
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    footage: SampleVideo,
) -> None:
    """From the first frame in which a face is good enough; the user id too, where the tracker has one."""
    ended = annotate("--ask-tracker")
    assert ended.exit_code == 0, ended.output
    assert f"across cameras: #41 {SOMEBODY}, #42\n" in ended.output
    assert len(labels) == footage.frames
    known = [line for frame in labels for face in frame for line in face if line.startswith("#")]
    assert set(known) == {f"#41 {SOMEBODY}", "#42"}
    seen = [face for frame in labels for face in frame if not any("low_quality" in line for line in face)]
    assert all(face[1].startswith("#") for face in seen)
    told = tracker.of(channels.OBSERVATION, fresh_device.id)
    # A second of the video, not of the machine that reads it.
    seconds = footage.frames / 15
    assert len({one.track_id for one in told}) < len(told) <= 2 * seconds
    times = sorted({one.captured_at for one in told})
    assert all((b - a).total_seconds() >= 0.149 for a, b in pairwise(times))
    assert tracker.of(channels.STATUS, fresh_device.id)[-1].state == "stopped"


def test_without_the_option_nobody_is_told(
    annotate: Annotate, labels: list[list[list[str]]], tracker: TrackerPeer, fresh_device: FreshDevice
) -> None:
    """The drawing needs no network."""
    ended = annotate()
    assert ended.exit_code == 0, ended.output
    assert "across cameras" not in ended.output
    assert not [line for frame in labels for face in frame for line in face if line.startswith("#")]
    assert tracker.of(channels.STATUS, fresh_device.id) == []


def test_where_no_tracker_answers_the_drawing_goes_on(
    annotate: Annotate,
    labels: list[list[list[str]]],
    tracker: TrackerPeer,
    fresh_device: FreshDevice,
    footage: SampleVideo,
) -> None:
    """One sentence, after some seconds, and nobody is asked any more."""
    tracker.silent = True
    ended = annotate("--ask-tracker")
    assert ended.exit_code == 0, ended.output
    assert ended.output.count("goes on without global ids") == 1
    assert "no tracker answers" in ended.output
    assert len(labels) == footage.frames
    assert len({one.captured_at for one in tracker.of(channels.OBSERVATION, fresh_device.id)}) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"WFM_MQTT__PORT": "1"}, "the broker at 127.0.0.1:1 cannot be reached"),
        ({"WFM_MQTT__PASSWORD": "another"}, "refuses this device"),
    ],
)
def test_where_the_broker_is_away_the_drawing_goes_on(
    annotate: Annotate,
    labels: list[list[list[str]]],
    footage: SampleVideo,
    changes: dict[str, str],
    sentence: str,
) -> None:
    """It is said at the start, once."""
    ended = annotate("--ask-tracker", **changes)
    assert ended.exit_code == 0, ended.output
    assert sentence in ended.output
    assert ended.output.count("goes on without global ids") == 1
    assert len(labels) == footage.frames


def test_where_the_broker_goes_away_the_drawing_goes_on(
    annotate: Annotate, labels: list[list[list[str]]], footage: SampleVideo, own_mosquitto: Mosquitto
) -> None:
    """At once, rather than after a second for every face."""

    class Saboteur(TrackerPeer):
        def _assign(self, observation: Observation) -> Assignment:
            own_mosquitto.kill()
            return super()._assign(observation)

    with closing(Saboteur(own_mosquitto)) as peer:
        peer.start()
        login = {"WFM_MQTT__USERNAME": "cam-001", "WFM_MQTT__PASSWORD": own_mosquitto.users["cam-001"]}
        place = {"WFM_DEVICE__ID": "cam-001", "WFM_DEVICE__SITE": "lobby"}
        ended = annotate("--ask-tracker", WFM_MQTT__PORT=str(own_mosquitto.port), **login, **place)
    assert ended.exit_code == 0, ended.output
    assert f"the connection to the broker at 127.0.0.1:{own_mosquitto.port} is gone" in ended.output
    assert ended.output.count("goes on without global ids") == 1
    assert len(labels) == footage.frames


def test_a_model_that_is_not_the_registrys_asks_nobody(
    annotate: Annotate, tracker: TrackerPeer, fresh_device: FreshDevice
) -> None:
    """Its vectors compare with nobody, and the retained head of the site says so."""
    tracker.send(channels.SYNC_HEAD, head_of("9c" * 32), site_id=fresh_device.site)
    ended = annotate("--ask-tracker")
    assert ended.exit_code == 0, ended.output
    assert "match no other vectors: the model file for face:gabor-512 is" in ended.output
    assert tracker.of(channels.OBSERVATION, fresh_device.id) == []


@pytest.mark.parametrize("options", [["--ask-tracker"], []])
def test_a_device_that_runs_is_not_taken_off_the_broker(
    annotate: Annotate, tracker: TrackerPeer, tmp_path: Path, options: list[str]
) -> None:
    """Two connections of one id would throw each other out; to draw without asking harms nobody."""
    with sole_owner(tmp_path / "data"):
        ended = annotate(*options)
    assert ended.exit_code == (2 if options else 0)
    assert ("another device runs on this folder" in ended.output) == bool(options)


def test_a_device_that_tells_of_nobody_asks_nobody(annotate: Annotate, tracker: TrackerPeer) -> None:
    """The setting holds for every way in which a vector could leave."""
    ended = annotate("--ask-tracker", WFM_DEVICE__OBSERVATIONS="false")
    assert ended.exit_code == 2
    assert "device.observations is false" in ended.output
