"""The doctor's checks of a machine, its models, its camera and its data folder."""

import hashlib
import sqlite3
import sys
import threading
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import SpaceHead, SpaceInfo, SyncHead
from deploy.local.stack import free_port
from device.bootstrap import sole_owner
from device.doctor.camera import check_camera, sample_camera
from device.doctor.check import CheckResult, run_check
from device.doctor.examination import examine
from device.doctor.machine import check_clock, check_versions, clock_is_synchronised
from device.doctor.models import check_detector, check_embedder_canary, check_model, check_providers
from device.doctor.storage import check_disk
from device.doctor.synthetic import synthetic_frame
from device.doctor.timing import STAGES, RecognitionStages, synthetic_gallery, time_stages
from device.management.health import Health
from device.management.space_problems import SpaceOnRecord
from device.management.spaces_on_record import SpacesOnRecord
from device.settings import DeviceSettings, QualitySettings
from device.store.db_manager import DatabaseManager
from device.store.outbox import Outbox
from device.vision.detectors.cascade import CascadeDetector
from device.vision.detectors.detector import Detections
from device.vision.embedder import load_embedder
from device.vision.inference.loader import open_session
from device.vision.quality import QualityGate
from tests.device_samples import NOON, event, person, seeded
from tests.liveness_checks import STEADY
from tests.networks import save_arcface_like, save_channel_means, save_nan

SHA = "0" * 64


def settings(data_dir: Path, **changes) -> DeviceSettings:
    """Return the settings of a device whose broker is unreachable."""
    device = {"id": "cam-001", "site": "lobby", "data_dir": data_dir, "source": str(data_dir / "none")}
    return DeviceSettings.model_validate({"device": {**device, **changes}, "mqtt": {"port": free_port()}})


def findings(found: DeviceSettings) -> dict[str, CheckResult]:
    report = examine(found, with_camera=False)
    assert len({check.name for check in report.checks}) == len(report.checks)
    return {check.name: check for check in report.checks}


# A failing check does not stop the others


def test_an_unexpected_exception_is_a_fault_with_its_type(caplog):
    """The log has the traceback."""

    def broken():
        raise KeyError("lens")

    check = run_check("camera", broken)
    assert (check.name, check.state) == ("camera", "fault")
    assert "KeyError" in check.detail
    assert "Traceback" in caplog.text


def test_a_broken_model_leaves_the_rest_of_the_examination(tmp_path):
    """Checks that need the model are skipped with a reason."""
    model = tmp_path / "truncated.onnx"
    model.write_bytes(save_arcface_like(tmp_path / "whole.onnx").read_bytes()[:500])
    found = findings(settings(tmp_path / "data", model=model, space="face:mine"))
    assert found["model"].state == "fault"
    assert str(model) in found["model"].detail
    assert {found[name].state for name in ("providers", "canary", "stages", "camera")} == {"skipped"}
    assert {found[name].state for name in ("versions", "detector", "disk")} == {"ok"}
    assert found["broker"].state == "fault"


def test_a_new_device_with_the_embedded_model_has_only_a_broker_fault(tmp_path):
    """The doctor writes nothing, not even the data folder."""
    found = findings(settings(tmp_path / "data"))
    assert {name for name, check in found.items() if check.state == "fault"} == {"broker"}
    assert (found["model"].state, found["limits"].state) == ("ok", "ok")
    assert "of the record beside the model" in found["limits"].detail
    assert "no database yet" in found["disk"].detail
    assert "1000 templates" in found["stages"].detail
    assert not (tmp_path / "data").exists()


def test_missing_detector_and_emotion_models_are_faults(tmp_path):
    """Each model has a check of its own, and so has the liveness check of a firmware."""
    liveness = {"liveness": "report", "liveness_check": "no_such_package:Check"}
    emotion = {"model": tmp_path / "no-emotion.onnx", "classes": ["calm", "glad"], "codes": {"glad": "EV2.1"}}
    detector = {"detector": "scrfd", "detector_model": tmp_path / "no-scrfd.onnx"}
    model = save_arcface_like(tmp_path / "mine.onnx")
    found = findings(
        settings(tmp_path / "data", model=model, space="face:mine", emotion=emotion, **detector, **liveness)
    )
    assert found["detector"].state == found["emotion"].state == found["liveness"].state == "fault"
    assert "no_such_package" in found["liveness"].detail
    assert "no-scrfd.onnx" in found["detector"].detail
    assert "no-emotion.onnx" in found["emotion"].detail
    assert found["stages"].state == "skipped"


def test_an_emotion_model_that_answers_is_sound(tmp_path):
    """The three channel means are three scores; a liveness check that loads is sound."""
    emotion = {
        "model": save_channel_means(tmp_path / "emotion.onnx"),
        "classes": ["calm", "glad", "sad"],
        "codes": {"glad": "EV2.1"},
    }
    liveness = {"liveness": "report", "liveness_check": STEADY}
    found = findings(settings(tmp_path / "data", emotion=emotion, **liveness))
    assert found["emotion"].state == found["liveness"].state == "ok"


# Machine


def versions_of(**installed):
    return {name.replace("_", "-"): version for name, version in installed.items()}.get


def test_versions_are_read_without_importing_packages(tmp_path):
    """A Jetson is identified by its release file."""
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    check = check_versions(versions_of(wfm_fleet="0.1.0", numpy="2.4.6", tensorrt="10.3.0"), release)
    assert (check.state, check.values["TensorRT"], check.values["l4t"]) == ("ok", "10.3.0", "R36.4.3")
    assert "TensorRT 10.3.0" in check.detail
    assert "L4T R36.4.3" in check.detail
    assert "tensorrt" not in sys.modules
    # Installed here, but not as a distribution: JetPack's OpenCV is like that.
    assert check.values["OpenCV"] == "of the system"


def test_two_onnx_runtimes_in_one_environment_are_a_warning(tmp_path):
    """The package without GPU support overwrites files of the other."""
    check = check_versions(versions_of(onnxruntime="1.20", onnxruntime_gpu="1.20"), tmp_path / "none")
    assert check.state == "warning"
    assert "uninstall both" in check.advice


@pytest.mark.parametrize(
    ("year", "synchronised", "state"),
    [
        (2026, True, "ok"),
        (2026, None, "ok"),
        (2026, False, "warning"),
        (1970, None, "fault"),
        (1970, True, "fault"),
    ],
)
def test_the_clock_is_checked_by_year_and_synchronisation(year, synchronised, state):
    """The registry rejects events of a device whose clock starts in 1970."""
    check = check_clock(datetime(year, 1, 15, tzinfo=timezone.utc), synchronised)
    assert check.state == state
    assert "its error is not measured" in check.detail


@pytest.mark.parametrize(
    ("answer", "flag", "expected"),
    [("yes", False, True), ("no", True, False), ("", True, True), ("", False, None)],
)
def test_synchronisation_comes_from_timedatectl_or_the_flag(tmp_path, answer, flag, expected):
    """Without systemd the flag file decides; without either the result is unknown."""
    command, file = tmp_path / "timedatectl", tmp_path / "synchronized"
    command.write_text(f"#!/bin/sh\necho {answer}\n")
    command.chmod(0o755)
    if flag:
        file.touch()
    assert clock_is_synchronised(file, str(command)) is expected
    assert clock_is_synchronised(file, str(tmp_path / "none")) is (True if flag else None)


# Data folder


@pytest.fixture
def database(tmp_path):
    """Return a data folder with two identities, a pending and a rejected event."""
    db = DatabaseManager(tmp_path / "data" / "device.db")
    db.initialize()
    db.enroll_locally("EMP-1", "face:test-8", [(person("EMP-1", 1).templates[0].vector, 0.9)])
    outbox = Outbox(db.connection, utc_now=lambda: NOON, source=seeded())
    outbox.put(event(1))
    with db.connection.transaction() as connection:
        connection.execute(
            "INSERT INTO rejected (event_id, body, code, detail, rejected_at) "
            "VALUES ('E', '{}', 'c', 'd', 't')"
        )
    db.close()
    return db.connection.path


def test_outbox_and_rejected_events_are_counted_without_writing(database):
    """Rejected events are a warning; the file stays byte for byte."""
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    check = check_disk(database.parent, database, outbox_mb=1)
    assert (check.values["outbox_depth"], check.values["rejected"], check.values["in_use"]) == (1, 1, False)
    assert check.state == "warning"
    assert "rejected list" in check.advice
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before


def test_a_device_that_runs_on_the_folder_is_no_fault(database):
    """The doctor reads the database while the device runs."""
    with sole_owner(database.parent), closing(sqlite3.connect(database)) as writer:
        writer.execute("DELETE FROM rejected")
        writer.commit()
        check = check_disk(database.parent, database, outbox_mb=1)
    assert (check.state, check.values["in_use"]) == ("ok", True)
    assert "a device runs on it" in check.detail


def test_a_damaged_database_is_a_fault_and_stays_unchanged(database):
    """The database has damaged pages, or the file is no database."""
    content = bytearray(database.read_bytes())
    content[4096:8192] = bytes(range(256)) * 16
    database.write_bytes(content)
    for damaged in (bytes(content), b"not a database" * 1000):
        database.write_bytes(damaged)
        check = check_disk(database.parent, database, outbox_mb=1)
        assert check.state == "fault"
        assert "aside" in check.advice
        assert database.read_bytes() == damaged


def test_a_database_of_newer_software_is_a_fault(database):
    """An older doctor cannot read a newer schema."""
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA user_version = 999")
    check = check_disk(database.parent, database, outbox_mb=1)
    assert check.state == "fault"
    assert "schema 999" in check.detail


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path):
    """The folder is below a file, or its file system is read-only."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "data", Path("/proc/wfm-data")):
        check = check_disk(folder, folder / "device.db", outbox_mb=1)
        assert check.state == "fault"
        assert "WFM_DEVICE__DATA_DIR" in check.advice


def test_too_little_room_for_the_outbox_is_a_warning(tmp_path):
    """The limit of a thousand terabytes exceeds every disk."""
    check = check_disk(tmp_path, tmp_path / "device.db", outbox_mb=10**9)
    assert check.state == "warning"
    assert "free space" in check.advice


# Models


@pytest.fixture
def embedder(tmp_path):
    return load_embedder(str(save_arcface_like(tmp_path / "mine.onnx")), "face:mine")


def test_a_model_is_described_by_path_hash_shapes_and_space(embedder):
    """Operators compare these values between devices."""
    check = check_model(embedder, SpaceOnRecord())
    digest = hashlib.sha256(embedder.session.path.read_bytes()).hexdigest()
    assert check.state == "ok"
    assert check.values["sha256"] == digest
    assert check.values["input"] == {"name": "input", "shape": [None, 3, 112, 112]}
    assert check.values["outputs"] == [{"name": "output", "shape": [None, 512]}]
    assert (check.values["space"], check.values["dimension"]) == ("face:mine", 512)
    assert digest[:12] in check.detail
    assert check_model(embedder, SpaceOnRecord(model_sha256=digest)).state == "ok"


def test_a_model_that_differs_from_the_registry_is_a_fault(tmp_path):
    """The registry's record is in the device's own database."""
    model = save_arcface_like(tmp_path / "mine.onnx")
    db = DatabaseManager(tmp_path / "data" / "device.db")
    db.initialize()
    record = SpacesOnRecord(db, Health(), {"face:mine": SpaceInfo(dimension=512, model_sha256="1" * 64)})
    head = SyncHead(
        epoch="aa",
        version=1,
        horizon=0,
        spaces={"face:mine": SpaceHead(count=0, digest="0" * 16, model_sha256=SHA)},
    )
    record.receive_message(Decoded(channels.SYNC_HEAD, {"site_id": "lobby"}, head))
    db.close()
    check = findings(settings(tmp_path / "data", model=model, space="face:mine"))["model"]
    assert check.state == "fault"
    assert check.detail.startswith("model-differs")
    assert SHA[:12] in check.detail


class ScriptedSession:
    """A session that reports a GPU and applies `answer` to the outputs of the CPU."""

    def __init__(self, path, answer, runs_on="cuda"):
        self.cpu = open_session(path)
        self.path, self.sha256, self.runs_on = path, self.cpu.sha256, runs_on
        self.input, self.outputs = self.cpu.input, self.cpu.outputs
        self.answer = answer

    def run(self, batch):
        return [self.answer(each) for each in self.cpu.run(batch)]


def test_a_provider_that_did_not_start_is_a_warning(tmp_path):
    """The doctor compares the running provider with the configured one."""
    session = open_session(save_arcface_like(tmp_path / "m.onnx"))
    assert check_providers(["cpu"], ["cpu"], session).state == "ok"
    missing = check_providers(["cuda", "cpu"], ["cpu"], session)
    assert (missing.state, missing.values["runs_on"]) == ("warning", "cpu")
    assert "install an ONNX Runtime that has cuda" in missing.advice
    silent = check_providers(["cuda", "cpu"], ["cuda", "cpu"], session)
    assert "the log says why" in silent.advice
    on_tensorrt = ScriptedSession(tmp_path / "m.onnx", lambda x: x, "tensorrt (ONNX Runtime)")
    assert check_providers(["tensorrt"], ["tensorrt", "cpu"], on_tensorrt).state == "ok"


def test_an_engine_needs_no_provider(tmp_path):
    """TensorRT runs the engine without ONNX Runtime."""
    session = ScriptedSession(save_arcface_like(tmp_path / "m.onnx"), lambda x: x, "tensorrt")
    session.path = tmp_path / "m.engine"
    check = check_providers(["cpu"], ["cpu"], session)
    assert (check.state, check.values["runs_on"]) == ("ok", "tensorrt")


def test_the_canary_passes_a_session_that_equals_the_cpu(tmp_path):
    """Both times are measured by the given clock."""
    session = ScriptedSession(save_arcface_like(tmp_path / "m.onnx"), lambda x: x * np.float32(1.001))
    check = check_embedder_canary(session, "face:mine", None)
    assert check.state == "ok"
    assert check.values["cosine"] > 0.999
    assert check.values["reference_ms"] > 0
    assert "on the CPU" in check.detail


@pytest.mark.parametrize("answer", [lambda x: x[:, ::-1], lambda x: x * np.nan, lambda x: x * 0])
def test_the_canary_catches_wrong_numbers(tmp_path, answer):
    """Reordered vectors, NaN and zeros quarantine the space, and the check has advice."""
    check = check_embedder_canary(
        ScriptedSession(save_arcface_like(tmp_path / "m.onnx"), answer), "face:mine", None
    )
    assert (check.state, check.values["passed"]) == ("fault", False)
    assert check.detail.startswith("canary-failed")
    assert "quarantine" in check.detail
    assert "fp16 off" in check.advice


def test_the_canary_of_a_model_that_answers_nan_fails_on_the_cpu_too(tmp_path):
    """A CPU session is its own reference, but its vectors must be finite."""
    session = open_session(save_nan(tmp_path / "nan.onnx"))
    check = check_embedder_canary(session, "face:nan", None)
    assert check.state == "fault"
    assert "NaN" in check.detail


def test_an_engine_without_its_onnx_file_cannot_be_trusted(tmp_path):
    """A session without a reference does not pass."""
    session = ScriptedSession(save_arcface_like(tmp_path / "m.onnx"), lambda x: x, "tensorrt")
    session.path = tmp_path / "m.engine"
    check = check_embedder_canary(session, "face:mine", tmp_path / "gone.onnx")
    assert check.state == "fault"
    assert "gone.onnx" in check.detail


class FixedDetector:
    """A detector that returns the given boxes."""

    name = "scripted"

    def __init__(self, *boxes):
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def detect(self, image):
        return Detections(self.boxes, np.ones(len(self.boxes), np.float32))


def test_a_detector_that_finds_faces_in_noise_is_a_warning(tmp_path):
    """The cascade finds no face in the synthetic picture."""
    device = settings(tmp_path).device
    assert check_detector(CascadeDetector(), device).state == "ok"
    check = check_detector(FixedDetector([0, 0, 90, 90]), device)
    assert (check.state, check.values["found"]) == ("warning", 1)


# Times


class Ticks:
    """A timer of which every lap takes a millisecond more than the one before."""

    def __init__(self):
        self.now, self.lap = 0.0, 0.0

    def __call__(self):
        self.now += self.lap / 1000
        self.lap += 1
        return self.now


def test_times_are_the_medians_of_every_stage_and_of_the_sum(tmp_path):
    """The laps of frame n start at 6n; the first frame is a warm-up."""
    embedder = load_embedder()
    stages = RecognitionStages(
        FixedDetector(), QualityGate(QualitySettings()), embedder, synthetic_gallery(embedder.space)
    )
    times = time_stages(stages, [synthetic_frame()] * 3, synthetic=True, timer=Ticks())
    assert [each.stage for each in times.stages] == list(STAGES)
    # Frames 1 to 3 read the timer at laps 6 to 23; the stages of frame 2 take 13 to 17 ms.
    assert [round(each.median_ms, 6) for each in times.stages] == [13, 14, 15, 16, 17, 75]
    assert [round(each.p95_ms, 6) for each in times.stages] == pytest.approx(
        [18.4, 19.4, 20.4, 21.4, 22.4, 102]
    )
    assert times.frames_per_second == pytest.approx(1000 / 75)
    assert (times.frames, times.faces, times.templates) == (3, 3, 1000)


def test_times_count_the_detected_faces(tmp_path):
    """Two detected faces per frame are embedded and matched."""
    embedder = load_embedder()
    stages = RecognitionStages(
        FixedDetector([10, 10, 100, 100], [200, 10, 100, 100]),
        QualityGate(QualitySettings()),
        embedder,
        synthetic_gallery(embedder.space),
    )
    times = time_stages(stages, [synthetic_frame()] * 2, synthetic=False, timer=Ticks())
    assert (times.faces, times.synthetic) == (4, False)


def test_stages_match_against_the_devices_own_gallery(tmp_path):
    """Damaged rows are left out, as in a running device."""
    model = save_arcface_like(tmp_path / "mine.onnx", dimension=8)
    db = DatabaseManager(tmp_path / "data" / "device.db")
    db.initialize()
    vector = person("EMP-1", 1).templates[0].vector
    db.enroll_locally("EMP-1", "face:mine", [(vector, 0.9), (bytes(32), 0.9)])
    db.close()
    check = findings(settings(tmp_path / "data", model=model, space="face:mine"))["stages"]
    assert check.values["templates"] == 1


# Camera


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(5):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((120, 160, 3), 100, np.uint8))
    return folder


def seen(source, **options):
    return check_camera(str(source), lambda: sample_camera(str(source), 10.0, **options), 10.0)


def test_a_file_is_described_by_size_and_length(pictures):
    """The file is read as fast as possible, not at its own rate."""
    check = seen(pictures)
    assert check.state == "ok"
    assert (check.values["sizes"], check.values["frames"], check.values["ended"]) == (["160x120"], 5, True)


def test_damaged_and_black_pictures_are_warnings(pictures):
    """A covered lens passes every other check."""
    (pictures / "9.png").write_bytes(b"no picture")
    damaged = seen(pictures)
    assert (damaged.state, damaged.values["corrupt"]) == ("warning", 1)
    for n in range(5):
        cv2.imwrite(str(pictures / f"{n}.png"), np.zeros((120, 160, 3), np.uint8))
    (pictures / "9.png").unlink()
    dark = seen(pictures)
    assert dark.state == "warning"
    assert "almost black" in dark.detail


@pytest.mark.parametrize("source", ["/none/video.mp4", "97"])
def test_a_missing_camera_is_a_fault(source):
    """The detail is the error sentence of the device itself."""
    check = seen(source)
    assert check.state == "fault"
    assert "WFM_DEVICE__SOURCE" in check.advice


def test_a_live_camera_cannot_be_looped():
    """The device ends with the same error."""
    check = seen("97", loop=True)
    assert check.state == "fault"
    assert "live and cannot be repeated" in check.detail


def test_a_camera_in_use_by_a_running_device_is_no_fault():
    """Only the running device can check it."""
    check = check_camera("97", lambda: sample_camera("97", 10.0), 10.0, in_use=True)
    assert check.state == "warning"
    assert "a device runs" in check.detail


def test_a_driver_that_never_answers_does_not_hang_the_doctor():
    """A separate thread opens the camera, and the doctor abandons it."""
    never = threading.Event()

    def opener(source, **_):
        never.wait()
        raise AssertionError

    try:
        check = check_camera("0", lambda: sample_camera("0", 0.05, opener=opener), 0.05)
    finally:
        never.set()
    assert check.state == "fault"
    assert "shows nothing within" in check.detail


def test_camera_frames_are_kept_for_the_stage_times(pictures):
    """The requested number is kept; without them the synthetic frame is timed."""
    assert [each.shape for each in sample_camera(str(pictures), 10.0, 3).pictures] == [(120, 160, 3)] * 3
    found = settings(pictures.parent / "data", source=str(pictures))
    report = examine(found, camera_frames=3)
    assert (report.times.frames, report.times.synthetic) == (3, False)
    missing = examine(settings(pictures.parent / "data"), camera_frames=3)
    assert missing.times.synthetic
    assert missing.checks[-1].state == "warning"
