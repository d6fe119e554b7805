"""Run `python -m device` with wrong models and videos on a real broker."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import helper

from broker_bridge.contract import channels
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.messages import Heartbeat, Upsert, WireTemplate
from deploy.local.sample_video import IDENTITIES, enrollment_photo, make_sample
from deploy.local.stack import Mosquitto
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.inference.tensorrt_builder import build_engine
from device.vision.photo_embedder import PhotoEmbedder
from tests.conftest import FreshDevice
from tests.detector_networks import save_scrfd
from tests.device_samples import ModelRegistry
from tests.fake_tensorrt import Machine
from tests.integration.device.conftest import Peer
from tests.integration.device.test_device_program import PYTHON, StartProgram, camera
from tests.networks import own_model, save_arcface_like, save_identity, save_nan, save_network
from tests.waiting import wait_until

SPACE = "face:arcface-test"
NAN = float("nan")
Save = Callable[[Path], Path]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of an identity of the demo and of an unknown face."""
    [sample] = make_sample(tmp_path_factory.mktemp("video"), list(IDENTITIES.values())[:1], cameras=1)
    return sample.path


def truncated(path: Path) -> Path:
    save_arcface_like(path)
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def save_nan_on_pictures(path: Path) -> Path:
    """Save a network that returns NaN for pictures, but not for the canary.

    It returns the means of the channels. An input made of whole grey levels, as a picture is, gives NaN.
    """
    node = helper.make_node
    return save_network(
        path,
        [
            node("Mul", ["input", "half"], ["scaled"]),
            node("Add", ["scaled", "half"], ["levels"]),
            node("Round", ["levels"], ["whole"]),
            node("Sub", ["levels", "whole"], ["odd"]),
            node("Abs", ["odd"], ["off"]),
            node("ReduceMax", ["off"], ["most"], axes=[1, 2, 3], keepdims=0),
            node("Unsqueeze", ["most", "last"], ["column"]),
            node("Greater", ["column", "little"], ["canary"]),
            node("Where", ["canary", "one", "nan"], ["factor"]),
            node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0),
            node("Mul", ["means", "factor"], ["output"]),
        ],
        weights={
            "half": np.array(127.5, np.float32),
            "last": np.array([1], np.int64),
            "little": np.array(0.01, np.float32),
            "one": np.array(1, np.float32),
            "nan": np.array(NAN, np.float32),
        },
    )


def no_model(tmp_path: Path, video: Path, **settings: str) -> dict[str, str]:
    return {
        "WFM_DEVICE__ID": "cam-001",
        "WFM_DEVICE__SITE": "lobby",
        "WFM_DEVICE__DATA_DIR": str(tmp_path / "data"),
        "WFM_DEVICE__SOURCE": str(video),
        **{f"WFM_DEVICE__{name}": value for name, value in settings.items()},
    }


def run_device(env: dict[str, str], program: Sequence[str] = PYTHON) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(program, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("setting", "save", "sentence"),
    [
        ("MODEL", truncated, "is not an ONNX model that can be run here"),
        ("MODEL", save_scrfd, "expected [n, 3, 112, 112]"),
        ("MODEL", save_identity, "expected one float32[2, d]"),
        ("DETECTOR_MODEL", truncated, "is not an ONNX model that can be run here"),
        ("DETECTOR_MODEL", save_arcface_like, "expected an SCRFD network"),
    ],
)
def test_a_file_that_is_not_the_model_ends_the_program_with_a_sentence(
    tmp_path: Path, video: Path, setting: str, save: Save, sentence: str
) -> None:
    """The program prints one line with the file's name and ends with status 2."""
    model = str(save(tmp_path / "model.onnx"))
    own = own_model(save_arcface_like(tmp_path / "own.onnx"), SPACE)
    if setting == "DETECTOR_MODEL":
        own["DETECTOR"] = "scrfd"
    env = no_model(tmp_path, video, **{**own, setting: model})
    ended = run_device(env)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "model.onnx" in ended.stderr
    assert sentence in ended.stderr


def test_an_engine_for_another_gpu_ends_the_program_with_a_sentence(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of another Jetson is refused; the sentence has the remedy."""
    with monkeypatch.context() as patch:
        Machine().install(patch)
        build_engine(
            save_arcface_like(tmp_path / "m.onnx"),
            tmp_path / "m.engine",
            fp16=False,
            max_batch=4,
            workspace_mb=64,
            built_at=datetime(2026, 1, 15, tzinfo=timezone.utc),
        )
    env = no_model(tmp_path, video, MODEL=str(tmp_path / "m.engine"), SPACE=SPACE)
    other_gpu = (
        "import pytest; from tests.fake_tensorrt import Machine; from device.__main__ import main; "
        "Machine(gpu='Thor', capability=(11, 0)).install(pytest.MonkeyPatch()); main()"
    )
    program = [sys.executable, "-c", other_gpu]
    ended = run_device(env, program)
    assert ended.returncode == 2
    assert "built for Orin (compute capability 8.7) and this is Thor (11.0)" in ended.stderr
    assert "Traceback" not in ended.stderr


Watch = Callable[..., tuple[Heartbeat, list[Any]]]


@pytest.fixture
def watch(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_program: StartProgram, tmp_path: Path
) -> Watch:
    """Return a function that plays a video and returns the last heartbeat and events.

    The call is `watch(source, *upserts, **settings)`.
    """

    def run(
        source: Path, *upserts: Upsert, synced: bool = True, **settings: str
    ) -> tuple[Heartbeat, list[Any]]:
        peer.registry = registry = ModelRegistry() if synced else None
        if registry is not None:
            registry.version = 1
            registry.people = {upsert.user_id: upsert for upsert in upserts}
        env = camera(mosquitto, fresh_device, source, tmp_path / "data")
        env |= {f"WFM_DEVICE__{name}": value for name, value in settings.items()}
        # At 60 frames per second the first sync ends long before the first face.
        env |= {"WFM_DEVICE__FPS": "60", "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2"}
        running = start_program(PYTHON, env)

        def beats() -> list[Heartbeat]:
            sent = peer.messages(channels.HEARTBEAT, fresh_device.id)
            # An event in the outbox is still on its way.
            return [beat for beat in sent if beat.camera == "ended" and not beat.outbox_depth]

        wait_until(lambda: len(beats()) > 1, "the end of the video", 60.0)
        assert "Traceback" not in running.log.read_text()
        return beats()[-1], peer.messages(channels.EVENT, fresh_device.id)

    return run


def test_a_sound_device_reports_unknown_faces_of_the_video(watch: Watch, video: Path) -> None:
    """A sound device is `ok`, unlike the devices of the following tests."""
    beat, events = watch(video)
    assert (beat.state, beat.problems) == ("ok", [])
    assert {event.event_type for event in events} == {"unknown"}


@pytest.mark.parametrize(
    ("save", "code", "sentence", "refusal"),
    [
        (save_nan, "canary-failed", "answers NaN or infinity", "quarantined"),
        (save_nan_on_pictures, "model-failed", "returns no vector for a face", "no_vector"),
    ],
)
def test_an_embedder_that_returns_nan_sends_no_event(
    watch: Watch, video: Path, tmp_path: Path, save: Save, code: str, sentence: str, refusal: str
) -> None:
    """The canary or the first face finds it; the device is degraded and runs on."""
    beat, events = watch(video, **own_model(save(tmp_path / "m.onnx"), SPACE))
    assert events == []
    [problem] = beat.problems
    assert (beat.state, problem.code) == ("degraded", code)
    assert sentence in problem.detail
    assert beat.refusals[refusal] >= 5


def test_a_detector_that_returns_nan_is_reported(watch: Watch, video: Path, tmp_path: Path) -> None:
    """Every frame fails and is counted; the program runs on."""
    network = save_scrfd(tmp_path / "det.onnx", score_bias=NAN)
    own = own_model(save_arcface_like(tmp_path / "m.onnx"), SPACE)
    beat, events = watch(video, **own, DETECTOR="scrfd", DETECTOR_MODEL=str(network))
    assert events == []
    [problem] = beat.problems
    assert problem.code == "model-failed"
    assert "det.onnx answers NaN or infinity" in problem.detail
    assert beat.refusals["frames_failed"] >= 5


def test_a_video_that_ends_within_a_frame_ends_there(watch: Watch, video: Path, tmp_path: Path) -> None:
    """All complete frames are processed."""
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    reader = cv2.VideoCapture(str(video))
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    while (picture := reader.read()[1]) is not None:
        writer.write(picture)
    writer.release()
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 9 // 10])
    beat, events = watch(cut)
    assert beat.problems == []
    assert beat.frames["seen"] > 10
    assert {event.event_type for event in events} == {"unknown"}


def test_a_truncated_mp4_ends_the_program_with_a_sentence(tmp_path: Path, video: Path) -> None:
    """An MP4 has its table of frames at the end."""
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:-20_000])
    ended = run_device(no_model(tmp_path, cut))
    assert ended.returncode == 2
    assert "cut.mp4" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_emotion_network_that_returns_nan_stops_no_recognition(
    watch: Watch, video: Path, tmp_path: Path
) -> None:
    """Recognition goes on; the emotion stage only reports its failure."""
    [(user_id, row)] = list(IDENTITIES.items())[:1]
    photo = PhotoEmbedder(load_detector(), load_embedder()).embed_photo(enrollment_photo(row))
    template = WireTemplate(template_id="photo", space=DEFAULT_FACE_SPACE.space, vector=photo.vector)
    emotion = {
        "model": str(save_nan(tmp_path / "emotion.onnx")),
        "classes": list("abcd"),
        "codes": {"a": "EV2.1"},
    }
    beat, events = watch(
        video, Upsert(user_id=user_id, version=1, templates=[template]), EMOTION=json.dumps(emotion)
    )
    [problem] = beat.problems
    assert (problem.code, problem.detail) == (
        "model-failed",
        "the emotion network returns NaN or infinity for a face",
    )
    assert {event.event_type for event in events} == {"facial_id", "unknown"}
    assert beat.refusals["emotion_low_confidence"] >= 1


def test_before_the_first_sync_no_face_is_reported(watch: Watch, video: Path) -> None:
    """A device without a gallery reports a stale gallery and does not recognise."""
    beat, events = watch(video, synced=False)
    assert events == []
    assert [problem.code for problem in beat.problems] == ["gallery-stale"]
    assert beat.refusals["stale_gallery"] >= 5
