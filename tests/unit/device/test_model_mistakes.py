"""A wrong or forgotten setting of a model is told, and makes no event.

Those that a file on this machine shows end the program at its start with a sentence, which the doctor tells
too. The others are a problem in the next heartbeat. The camera sees an enrolled person, which it recognises
where there is no mistake.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.data import astronaut

from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import SpaceHead, SyncHead, Upsert, WireTemplate
from device.bootstrap import build
from device.doctor.check import run_check
from device.doctor.examination import _Examination
from device.enrollment.gallery_rows import GalleryRows
from device.management.heartbeat import HeartbeatSender
from device.program import DeviceProgram
from device.recognition.assembly import build_recognition
from device.settings import DeviceSection, DeviceSettings
from device.store.cursor import SyncCursor
from device.store.db_manager import DatabaseManager
from device.vision.capture.camera import Frame
from device.vision.inference.session import ModelError
from device.vision.model_record import built_in_model
from tests.networks import LIMITS, save_arcface_like, save_record

SPACE = "face:mine"
OWN, FOREIGN = "own.onnx", "foreign.onnx"
FRAMES = 5
COUNT_AND_DIGEST = {"count": 1, "digest": "0" * 16}


@dataclass
class Scene:
    """A camera with a model of its own and an enrolled person before it."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / OWN

    def settings(self, **changed: Any) -> DeviceSettings:
        device = {
            "id": "cam-001",
            "site": "lobby",
            "data_dir": self.folder / "data",
            "model": self.model,
            "source": str(self.folder),
            **changed,
        }
        known = {name: str(value) for name, value in device.items() if value is not None}
        return load_settings(
            DeviceSettings, None, {f"WFM_DEVICE__{name.upper()}": value for name, value in known.items()}
        )

    def enroll(self, *people: tuple[str, bytes], space: str = SPACE) -> None:
        """Store a gallery as a sync leaves it."""
        db = DatabaseManager(self.folder / "data" / "device.db")
        db.connection.path.parent.mkdir(exist_ok=True)
        db.initialize()
        upserts = [
            Upsert(
                user_id=user_id,
                version=1,
                templates=[WireTemplate(template_id=f"t-{user_id}", space=space, vector=vector)],
            )
            for user_id, vector in people
        ]
        db.apply_delta(upserts, [], SyncCursor("lobby", (space,), "aa", 1))
        db.set_config("synced_at", utc_now().isoformat())
        db.close()


def frame(number: int) -> Frame:
    """Return a picture of a person, with the noise of a sensor."""
    noise = np.random.default_rng(number).normal(0, 2, (256, 256, 3))
    image = np.clip(astronaut()[:256, 96:352, ::-1] + noise, 0, 255).astype(np.uint8)
    return Frame(image, number, float(number))


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the vector that the camera makes of the person."""
    model = save_record(save_arcface_like(tmp_path_factory.mktemp("model") / OWN), SPACE)
    recognition = build_recognition(DeviceSection(id="cam-001", site="lobby", model=model))
    pipeline = recognition.build_pipeline(suppressed_reason=lambda: None, on_event=lambda *_: None)
    [seen] = pipeline.process(frame(0)).sightings
    assert seen.vector is not None
    return normalise(seen.vector, recognition.space.dimension)


def stranger(seed: int) -> bytes:
    return normalise(np.random.default_rng(seed).normal(size=512), 512)


def doctor(settings: DeviceSettings) -> str:
    """Return the faults that the doctor finds in model, limits and detector."""
    checks = _Examination(settings, with_camera=False, camera_frames=0).checks()
    results = [run_check(name, checks[name]) for name in ("model", "limits", "detector")]
    return " ".join(check.detail for check in results if check.state == "fault")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    save_record(save_arcface_like(scene.model), SPACE)
    save_arcface_like(tmp_path / FOREIGN, seed=9)
    return scene


def tell(program: DeviceProgram, *, people: int | None = 1, **space: Any) -> None:
    """Give the camera the head of its site."""
    spaces = {SPACE: SpaceHead.model_validate({**COUNT_AND_DIGEST, "people": 1, **space})}
    head = SyncHead(
        epoch="aa",
        version=1,
        horizon=0,
        spaces=spaces if space.get("people") != 0 else {},
        people=people,
        enrollment_policy="visitors",
    )
    program.parts.client.broker._listeners.receive_message(
        Decoded(channels.SYNC_HEAD, {"site_id": "lobby"}, head)
    )


def watch(program: DeviceProgram) -> tuple[list[str], int, int]:
    """Show the person; return problems, events and offered visitors of a heartbeat."""
    for number in range(1, FRAMES + 2):
        program._process_frame(frame(number))
    heartbeat = HeartbeatSender(
        program.parts.client,
        program.parts.sync,
        folder=program.parts.db.connection.path.parent,
        interval=30.0,
        clock=time.monotonic,
        utc_now=utc_now,
        vision=program.vision_readings,
    )
    beat = heartbeat.compose()
    assert (beat.state == "ok") == (not beat.problems)
    assert all(problem.detail for problem in beat.problems)
    offered = program._registrations._store.pending()
    return [problem.code for problem in beat.problems], beat.outbox_depth, len(offered)


def test_a_camera_without_a_mistake_recognises_the_person(scene: Scene, face: bytes) -> None:
    """The tests below would see its event."""
    scene.enroll(("EMP-1", face))
    assert doctor(scene.settings()) == ""
    program = build(scene.settings())
    tell(program)
    assert watch(program) == ([], 1, 0)
    program.parts.db.close()


# At start


def rewrite(scene: Scene, **fields: Any) -> None:
    record = json.loads(scene.model.with_suffix(".json").read_text())
    scene.model.with_suffix(".json").write_text(json.dumps({**record, **fields}))


def another_file(scene: Scene) -> dict[str, Any]:
    scene.model.write_bytes((scene.folder / FOREIGN).read_bytes())
    return {}


def another_dimension(scene: Scene) -> dict[str, Any]:
    rewrite(scene, dimension=128)
    return {}


def no_record(scene: Scene) -> dict[str, Any]:
    scene.model.with_suffix(".json").unlink()
    return {}


def another_space(_scene: Scene) -> dict[str, Any]:
    return {"space": "face:arcface"}


def another_detector(scene: Scene) -> dict[str, Any]:
    return {"detector": "yunet", "detector_model": scene.folder / FOREIGN}


def no_detector_model(scene: Scene) -> dict[str, Any]:
    rewrite(scene, detector="scrfd")
    return {}


def the_defaults_name_in_the_record(scene: Scene) -> dict[str, Any]:
    rewrite(scene, space=DEFAULT_FACE_SPACE.space, dimension=512)
    return {}


def the_defaults_name_in_the_settings(scene: Scene) -> dict[str, Any]:
    no_record(scene)
    return {"space": DEFAULT_FACE_SPACE.space}


def a_gait_model(scene: Scene) -> dict[str, Any]:
    rewrite(scene, space="gait:mine")
    return {}


def a_space_without_a_model(_scene: Scene) -> dict[str, Any]:
    return {"model": None, "space": "face:arcface"}


def limits_of_another_space(_scene: Scene) -> dict[str, Any]:
    return {"thresholds": json.dumps({"face:mien": {"distance": 0.3}})}


def a_broken_record(scene: Scene) -> dict[str, Any]:
    rewrite(scene, limits={"distance": 0.3})
    return {}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (another_file, "own.onnx has the SHA-256"),
        (another_dimension, "its record says 128"),
        (no_record, "own.json is missing"),
        (another_space, "the setting `space` says face:arcface"),
        (another_detector, "the setting `detector` says yunet"),
        (no_detector_model, "needs detector_model"),
        (the_defaults_name_in_the_record, "is not the one of face:"),
        (the_defaults_name_in_the_settings, "is not the one of face:"),
        (a_gait_model, "gait:mine is not a space of faces"),
        (a_space_without_a_model, "set model too"),
        (limits_of_another_space, "face:mien is no space of this device"),
        (a_broken_record, "own.json is no record of a model: limits.margin"),
    ],
)
def test_a_mistake_in_files_and_settings_ends_the_start_with_a_sentence(
    scene: Scene, mistake: Any, words: str
) -> None:
    """The doctor says the same, and reads the file that is named."""
    changed = mistake(scene)
    with pytest.raises((ModelError, SettingsError)) as caught:
        build(scene.settings(**changed))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if mistake is a_space_without_a_model:
        return
    assert words in doctor(scene.settings(**changed))


# In a heartbeat


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"model_sha256": "0" * 64}, "model-differs"),
        ({"dimension": 128}, "space-mismatch"),
        ({"detector": "scrfd"}, "preparation-differs"),
        ({"alignment": "landmarks"}, "preparation-differs"),
        ({"limits": LIMITS.model_copy(update={"distance": 2.0}).model_dump()}, "thresholds-unsuited"),
    ],
)
@pytest.mark.parametrize("offline", [False, True])
def test_a_model_that_the_registry_knows_otherwise_makes_no_event(
    scene: Scene, face: bytes, record: dict[str, Any], code: str, offline: bool
) -> None:
    """Also after a restart without a network."""
    scene.enroll(("EMP-1", face), *((f"EMP-{n}", stranger(n)) for n in range(2, 9)))
    program = build(scene.settings())
    tell(program, **record)
    if offline:
        program.parts.db.close()
        program = build(scene.settings())
    assert watch(program) == ([code], 0, 0)
    assert code in doctor(scene.settings())
    tell(program)
    assert watch(program)[0] == []
    program.parts.db.close()


def test_a_space_without_limits_makes_no_event(scene: Scene, face: bytes) -> None:
    """Neither of the person nor of a stranger; limits in the head end it at once."""
    scene.enroll(("EMP-1", face))
    rewrite(scene, limits=None, source=None)
    program = build(scene.settings())
    tell(program)
    assert watch(program) == (["limits-missing"], 0, 0)
    assert "limits-missing" in doctor(scene.settings())
    tell(program, limits=LIMITS.model_dump())
    for number in range(10, 10 + FRAMES):
        program._process_frame(frame(number))
    assert program.parts.outbox.depth == 1
    program.parts.db.close()
    offline = build(scene.settings())
    assert watch(offline)[:1] == ([],)
    offline.parts.db.close()


def test_a_camera_in_an_empty_space_registers_nobody(scene: Scene) -> None:
    """Of 17 people none is enrolled in its space: they are employees and no visitors."""
    scene.enroll()
    program = build(scene.settings())
    tell(program, people=17)
    # The site has no people in the space, so the head does not name it.
    head = SyncHead(epoch="aa", version=1, horizon=0, spaces={}, people=17, enrollment_policy="visitors")
    program.parts.client.broker._listeners.receive_message(
        Decoded(channels.SYNC_HEAD, {"site_id": "lobby"}, head)
    )
    assert watch(program) == (["gallery-empty"], 0, 0)
    [problem] = program.health.problems()
    assert problem.detail.startswith(f"0 of 17 people are enrolled in {SPACE}")
    program.parts.db.close()


def test_a_new_site_without_people_registers_visitors(scene: Scene) -> None:
    """Its gallery is empty and rightly so."""
    scene.enroll()
    program = build(scene.settings())
    tell(program, people=0)
    assert watch(program) == ([], 1, 1)
    program.parts.db.close()


def test_the_built_in_model_needs_no_setting(scene: Scene) -> None:
    """Its record lies beside it and names everything."""
    program = build(scene.settings(model=None))
    assert program._recognition.record == DEFAULT_FACE_SPACE
    assert program._recognition.embedder.session.path == built_in_model()
    program.parts.db.close()


def test_twins_and_a_visitor_enrolled_twice_do_not_stop_recognition(scene: Scene, face: bytes) -> None:
    """A few people within the match distance are normal in a gallery."""
    program = build(scene.settings())
    rows = [face, face, *(stranger(n) for n in range(6))]
    ids = ["EMP-1", "VIS-00000001", *(f"EMP-{n}" for n in range(10, 16))]
    vectors = np.stack([np.frombuffer(row, "<f4") for row in rows])
    program._gallery_watch.follow_gallery(GalleryRows(SPACE, 512, ids, vectors, 2), lambda: None)
    assert program.health.problems() == []
    program.parts.db.close()
