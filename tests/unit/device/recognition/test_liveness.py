"""The liveness check that firmware brings: settings, loading, and what it refuses."""

import json
import logging
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import Liveness
from device.bootstrap import build
from device.events.emotion_validator import EmotionEventValidator
from device.events.event_validator import EventValidator
from device.recognition.assembly import build_recognition
from device.recognition.emotions import EmotionStage
from device.recognition.liveness import LivenessStage
from device.recognition.liveness_check import load_liveness_check
from device.recognition.pipeline import RecognitionPipeline
from device.settings import DeviceSettings
from device.tracking.sampling import ObservationSampler
from device.vision.capture.camera import Frame
from device.vision.detectors.detector import Detections
from device.vision.emotion import Emotion
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.tracker import FaceTracker
from tests import liveness_checks
from tests.liveness_checks import STEADY, ScriptedCheck, SteadyCheck

ROOT = Path(__file__).parents[4]
IDS = {"id": "cam-001", "site": "lobby"}


# Settings


def settings_from(form, tmp_path, **liveness):
    """Return the settings of a device from a file or from the environment."""
    device = {**IDS, "data_dir": str(tmp_path / "data"), **liveness}
    if form == "file":
        file = tmp_path / "device.json"
        file.write_text(json.dumps({"device": device}))
        return load_settings(DeviceSettings, file, {})
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in device.items()}
    return load_settings(
        DeviceSettings, None, {f"WFM_DEVICE__{name.upper()}": value for name, value in text.items()}
    )


both_forms = pytest.mark.parametrize("form", ["file", "environment"])


@both_forms
@pytest.mark.parametrize(
    "liveness",
    [
        {},
        {"liveness": "off"},
        {"liveness": "off", "liveness_check": STEADY, "liveness_threshold": 0.5},
        {"liveness": "report", "liveness_check": STEADY},
        {"liveness": "require", "liveness_check": STEADY, "liveness_threshold": 0.000001},
        {"liveness": "require", "liveness_check": STEADY, "liveness_threshold": 1},
    ],
)
def test_liveness_is_a_mode_with_a_check_and_a_threshold(form, tmp_path, liveness):
    """Both forms of settings say the same."""
    device = settings_from(form, tmp_path, **liveness).device
    assert device.liveness == liveness.get("liveness", "off")
    assert device.liveness_threshold == liveness.get("liveness_threshold")


@both_forms
@pytest.mark.parametrize(
    ("liveness", "sentence"),
    [
        ({"liveness": "report"}, "device.liveness: liveness-missing: 'report' needs a liveness check"),
        ({"liveness": "require"}, "device.liveness: liveness-missing: 'require' needs a liveness check"),
        (
            {"liveness": "require", "liveness_threshold": 0.5},
            "device.liveness: liveness-missing: 'require' needs a liveness check",
        ),
        (
            {"liveness": "require", "liveness_check": STEADY},
            "device.liveness: liveness-missing: 'require' needs device.liveness_threshold",
        ),
        ({"liveness": "on"}, "device.liveness: Input should be 'off', 'report' or 'require'"),
        ({"liveness": "Required"}, "device.liveness: Input should be 'off', 'report' or 'require'"),
        ({"liveness": "REPORT"}, "device.liveness: Input should be"),
        ({"liveness": ""}, "device.liveness: Input should be"),
        ({"liveness": True}, "device.liveness: Input should"),
        ({"liveness": False}, "device.liveness: Input should"),
        ({"liveness": 1}, "device.liveness: Input should be"),
        ({"liveness_threshold": 0}, "device.liveness_threshold: Input should be greater than 0"),
        ({"liveness_threshold": 1.1}, "device.liveness_threshold: Input should be less than"),
        ({"liveness_threshold": -0.1}, "device.liveness_threshold: Input should be greater"),
        ({"liveness_threshold": True}, "device.liveness_threshold: Input should"),
        ({"liveness_threshold": "NaN"}, "device.liveness_threshold: Input should be"),
        ({"liveness_check": ""}, "device.liveness_check: a liveness check is module:name"),
        ({"liveness_check": "depth"}, "device.liveness_check: a liveness check is module:name"),
        ({"liveness_check": "/opt/depth.py:Check"}, "device.liveness_check: a liveness check is"),
        ({"liveness_check": "acme:Depth.make"}, "device.liveness_check: a liveness check is"),
        ({"liveness_check": "acme:Depth()"}, "device.liveness_check: a liveness check is"),
        ({"liveness_check": "acme:Depth\n"}, "device.liveness_check: a liveness check is"),
        ({"liveness_chek": STEADY}, "did you mean 'liveness_check'"),
    ],
)  # fmt: skip
def test_a_wrong_or_forgotten_setting_is_refused_with_one_sentence(form, tmp_path, liveness, sentence):
    """Nothing is assumed in its place."""
    with pytest.raises(SettingsError) as caught:
        settings_from(form, tmp_path, **liveness)
    [mistake] = caught.value.mistakes
    assert sentence in mistake


def test_a_wrong_check_is_not_also_reported_as_missing(tmp_path):
    """One mistake has one sentence."""
    with pytest.raises(SettingsError) as caught:
        settings_from("file", tmp_path, liveness="require", liveness_check="depth", liveness_threshold=7)
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [
        "device.liveness_check",
        "device.liveness_threshold",
    ]


# Loading


def refused(path):
    with pytest.raises(SettingsError) as caught:
        load_liveness_check(path)
    [mistake] = caught.value.mistakes
    assert mistake.startswith(f"liveness-missing: device.liveness_check: {path} ")
    assert "\n" not in mistake
    return mistake


def test_a_check_is_made_by_its_import_path():
    """A class is called without arguments."""
    assert isinstance(load_liveness_check(STEADY), SteadyCheck)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_package.depth:Check", "ModuleNotFoundError"),
        ("tests.liveness_checks:Missing", "AttributeError"),
        ("tests.liveness_checks:STEADY", "TypeError"),
        ("", "ValueError"),
    ],
)
def test_a_check_that_is_not_there_is_refused(path, reason):
    """The sentence says what Python said, and what to do."""
    assert reason in refused(path)


@pytest.mark.parametrize("error", [RuntimeError("no sensor\nat /dev/video2"), OSError("x" * 5000)])
def test_a_check_that_cannot_start_is_refused(monkeypatch, error):
    """Its error becomes a part of one line."""

    def make():
        raise error

    monkeypatch.setattr(liveness_checks, "Made", make, raising=False)
    sentence = refused("tests.liveness_checks:Made")
    assert type(error).__name__ in sentence
    assert len(sentence) < 600


@pytest.mark.parametrize("method", ["", "x" * 33, "Depth", "de pth", "depth\n", b"depth", 7, None])
def test_a_check_has_a_method_that_an_event_can_carry(monkeypatch, method):
    """Otherwise each of its events would be rejected by the bridge."""
    check = SteadyCheck()
    check.method = method
    monkeypatch.setattr(liveness_checks, "Made", lambda: check, raising=False)
    assert "expected 1 to 32 characters" in refused("tests.liveness_checks:Made")


@pytest.mark.parametrize("made", [None, object(), type("X", (), {"method": "depth", "scores": [0.9]})(), 0.9])
def test_what_is_no_check_is_refused(monkeypatch, made):
    """A check has a method and a function of scores."""
    monkeypatch.setattr(liveness_checks, "Made", lambda: made, raising=False)
    assert "makes no liveness check" in refused("tests.liveness_checks:Made")


@pytest.mark.parametrize(
    ("liveness", "has_stage"),
    [
        # An unused check is not even loaded.
        ({"liveness": "off", "liveness_check": "no_such_package:Check"}, False),
        ({"liveness": "report", "liveness_check": STEADY}, True),
        ({"liveness": "require", "liveness_check": STEADY, "liveness_threshold": 0.5}, True),
    ],
)
def test_the_mode_decides_whether_there_is_a_stage(tmp_path, liveness, has_stage):
    """Without one, the pipeline has nothing to skip."""
    recognition = build_recognition(settings_from("file", tmp_path, **liveness).device)
    assert (recognition.liveness is not None) == has_stage


def test_a_camera_whose_check_cannot_be_loaded_does_not_start(tmp_path):
    """No face is recognised without the check that was asked for."""
    missing = {"liveness": "require", "liveness_check": "no_such_package:Check", "liveness_threshold": 0.5}
    with pytest.raises(SettingsError, match="liveness-missing"):
        build(settings_from("file", tmp_path, **missing))


# The pipeline


class Faces:
    """A detector of faces in a row, and an embedder of one identity."""

    space = EmbeddingSpace("face:test", 2)

    def __init__(self, count, blurred=()):
        self.count = count
        self.blurred = set(blurred)

    def detect(self, image):
        boxes = np.array([[10 + 100 * row, 10, 50, 50] for row in range(self.count)], np.float32)
        return Detections(boxes.reshape(-1, 4), np.ones(self.count, np.float32))

    def embed(self, faces):
        return np.tile(np.array([[1, 0]], np.float32), (len(faces), 1))

    def check_quality(self, faces, found):
        return ["blurred" if row in self.blurred else None for row in range(len(faces))]


class Camera:
    """A pipeline on a check; `see` is one frame of it."""

    def __init__(self, check, threshold=None, faces=1, blurred=(), known=True, **parts):
        camera = Faces(faces, blurred)
        users, vectors = (["EMP-1"], [[1, 0]]) if known else (["EMP-2"], [[0, 1]])
        galleries = GalleryHolder(Gallery(camera.space, users, np.array(vectors, np.float32)))
        self.validator = EventValidator("cam-001", confirmation_frames=3, unknown_events=True)
        self.stage = None if check is None else LivenessStage(check, threshold)
        self.faces = camera
        self.pipeline = RecognitionPipeline(
            camera,
            FaceTracker(),
            camera,
            galleries,
            self.validator,
            quality=camera,
            liveness=self.stage,
            **parts,
        )
        self.index = 0

    def see(self, count=1):
        """Return the reports of `count` frames."""
        reports = []
        for _ in range(count):
            image = np.zeros((80, 400, 3), np.uint8)
            reports.append(self.pipeline.process(Frame(image, self.index, self.index / 15)))
            self.index += 1
        return reports

    def events(self, count):
        return [event for report in self.see(count) for event, _ in report.events]


def liveness_of(event):
    return event.metadata.get("liveness")


def test_off_measures_and_sends_nothing():
    """There is no stage, no score and no key."""
    camera = Camera(None)
    [event] = camera.events(3)
    [report] = camera.see()
    assert "liveness" not in event.metadata
    assert "liveness" not in report.milliseconds
    assert report.sightings[0].liveness is None


@pytest.mark.parametrize("known", [True, False])
def test_report_adds_the_lowest_score_and_refuses_nothing(known):
    """A face that is surely a picture is reported as one, and recognised."""
    camera = Camera(ScriptedCheck([0.9], [0.00004], [1]), known=known)
    [event] = camera.events(3)
    assert liveness_of(event) == {"score": 0.0, "method": "depth"}
    assert event.user_id == ("EMP-1" if known else None)
    [report] = camera.see()
    assert report.sightings[0].liveness == Liveness(score=1.0, method="depth")
    assert "liveness" in report.milliseconds


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("score", "passes"), [(0.0, False), (math.nextafter(0.5, 0), False), (0.5, True), (1.0, True)]
)
def test_require_drops_a_face_below_the_threshold(known, score, passes):
    """It is not embedded: no event, no visitor, no observation."""
    camera = Camera(ScriptedCheck([score]), 0.5, known=known)
    sampler = ObservationSampler()
    reports = camera.see(6)
    observed = [
        each for report in reports for each in sampler.select_due(report.sightings, report.captured_at)
    ]
    events = [event for report in reports for event, _ in report.events]
    assert (len(events), len(observed)) == ((1, 1) if passes else (0, 0))
    if passes:
        assert liveness_of(events[0]) == {"score": score, "method": "depth"}
        assert observed[0].liveness == Liveness(score=score, method="depth")
    else:
        assert camera.validator.refusals == {"not_live": 6}
        assert all(seen.vector is None and seen.match is None for r in reports for seen in r.sightings)


def test_the_frames_of_an_event_are_live_in_a_row():
    """A picture that passes two frames of three never gathers its three frames."""
    scores = [[0.9], [0.9], [0.1]] * 20
    camera = Camera(ScriptedCheck(*scores, [0.9]), 0.5)
    assert camera.events(60) == []
    assert camera.validator.refusals == {"not_live": 20, "unconfirmed": 40}
    assert len(camera.events(3)) == 1


def test_a_blurred_frame_neither_is_measured_nor_ends_the_row():
    """Low quality says nothing about life."""
    check = ScriptedCheck([0.9])
    camera = Camera(check, 0.5)
    camera.see(2)
    camera.faces.blurred = {0}
    camera.see(2)
    assert len(check.calls) == 2
    camera.faces.blurred = set()
    assert len(camera.events(1)) == 1


def test_faces_of_one_frame_are_judged_apart():
    """One call has all faces of good quality, with the boxes and tracks of the frame."""
    check = ScriptedCheck([0.9, 0.1])
    camera = Camera(check, 0.5, faces=3, blurred=[1])
    [report] = camera.see()
    assert [seen.decision.reason for seen in report.sightings] == ["unconfirmed", "low_quality", "not_live"]
    [(frame, faces)] = check.calls
    assert [(face.box.x, face.track_id, face.landmarks) for face in faces] == [
        (10, "face_0", None),
        (210, "face_2", None),
    ]
    assert frame.captured_at == 0.0
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 255


def test_a_frame_without_faces_does_not_use_the_check():
    """A check is never called with nothing, and shows no failure by it."""
    check = ScriptedCheck([])
    camera = Camera(check, 0.5, faces=0)
    camera.see(3)
    assert (check.calls, camera.stage.failure) == ([], None)


def raising(error):
    def answer():
        raise error

    return answer


FAILURES = {
    "NaN": [math.nan],
    "infinity": [math.inf],
    "minus infinity": [-math.inf],
    "below 0": [-0.1],
    "above 1": [1.1],
    "a long integer": [10**400],
    "text": ["0.9"],
    "true": [True],
    "numpy's true": [np.True_],
    "none": [None],
    "a fraction": [Fraction(1, 2)],
    "a list in a list": [[0.9]],
    "a column": np.array([[0.9]]),
    "too few": [],
    "too many": [0.9, 0.9],
    "a number": 0.9,
    "nothing": None,
    "raising": raising(RuntimeError("the face looks like this: \xff\xd8")),
    "raising without a text": raising(KeyError()),
    "a model's error": raising(MemoryError()),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES.keys())
def test_a_check_that_fails_shows_no_life(answer):
    """With `require` its faces are not live, with `report` they go without a score."""
    required = Camera(ScriptedCheck(answer), 0.000001)
    assert required.events(4) == []
    assert required.validator.refusals == {"not_live": 4}
    assert "faces count as not live" in required.stage.failure
    reported = Camera(ScriptedCheck(answer))
    [event] = reported.events(3)
    assert "liveness" not in event.metadata
    assert "events go without it" in reported.stage.failure
    assert "looks like" not in reported.stage.failure


@pytest.mark.parametrize(
    "score", [0, 1, 0.0, -0.0, np.float32(0.5), np.float64(1), np.int64(1), np.float16(0.25)]
)
def test_every_number_from_0_to_1_is_a_score(score):
    """Numpy's numbers are numbers, also in an array."""
    for answer in ([score], (score,), np.array([score]), iter):
        check = ScriptedCheck((lambda: iter([score])) if answer is iter else answer)
        camera = Camera(check)
        [report] = camera.see()
        assert report.sightings[0].liveness.score == pytest.approx(float(score))
        assert math.copysign(1, report.sightings[0].liveness.score) == 1
        assert camera.stage.failure is None


def test_one_bad_score_fails_one_face():
    """The other face of the frame is judged by its own score, and the failure is told."""
    camera = Camera(ScriptedCheck([0.9, math.nan]), 0.5, faces=2)
    [report] = camera.see()
    assert [seen.decision.reason for seen in report.sightings] == ["unconfirmed", "not_live"]
    assert "no number from 0 to 1" in camera.stage.failure


def test_an_event_has_no_liveness_if_one_of_its_frames_has_none():
    """The lowest of some frames would say more than was measured."""
    camera = Camera(ScriptedCheck([0.9], [math.nan], [0.9]))
    [event] = camera.events(3)
    assert "liveness" not in event.metadata


def test_the_program_of_a_check_may_end_itself():
    """An interrupt is no failure of the check."""
    with pytest.raises(KeyboardInterrupt):
        Camera(ScriptedCheck(raising(KeyboardInterrupt()))).see()


@pytest.mark.parametrize(("reason", "measured"), [("quarantined", 0), ("stale_gallery", 3)])
def test_an_unused_face_is_not_measured(reason, measured):
    """A stale gallery still sends observations, a quarantined model sends nothing."""
    check = ScriptedCheck([0.1])
    camera = Camera(check, 0.5, suppressed_reason=lambda: reason)
    reports = camera.see(3)
    assert len(check.calls) == measured
    assert all(seen.vector is None for report in reports for seen in report.sightings)


def test_a_face_that_is_not_live_drops_the_vector_that_waits():
    """An observation never has the box of a face that is not live."""
    camera = Camera(ScriptedCheck(*[[0.9]] * 10, [0.1]), 0.5)
    sampler = ObservationSampler()
    observed = [
        report.index for report in camera.see(30) if sampler.select_due(report.sightings, report.captured_at)
    ]
    assert observed == [0]


# The device


@pytest.fixture
def program(tmp_path):
    liveness = {"liveness": "require", "liveness_check": STEADY, "liveness_threshold": 0.5}
    program = build(settings_from("file", tmp_path, **liveness))
    yield program
    program.parts.db.close()


def frames_of(faces):
    rng = np.random.default_rng(1)
    for index in range(100):
        picture = np.kron(rng.integers(0, 255, (12, 40, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        yield Frame(picture, index, float(index))


def test_a_failing_check_is_a_problem_of_the_device_until_it_works(program, monkeypatch, caplog):
    """The heartbeat has it, and the log has one line for each run of failures."""
    camera = Faces(1)
    script = ScriptedCheck(
        [0.9], raising(ValueError("a")), raising(TypeError("b")), [math.nan], [0.9], [1.1], [1.2], [0.9]
    )
    monkeypatch.setattr(program._recognition.liveness, "_check", script)
    pipeline = program._pipeline
    monkeypatch.setattr(pipeline, "_detector", camera)
    monkeypatch.setattr(pipeline, "_quality", camera)
    codes = []
    with caplog.at_level(logging.INFO):
        for frame, _ in zip(frames_of(camera), range(8), strict=False):
            program._process_frame(frame)
            codes.append("liveness-failed" in [each.code for each in program.vision_readings().problems])
    assert codes == [False, True, True, True, False, True, True, False]
    lines = [line for line in caplog.messages if "code=liveness-failed" in line]
    assert [line.split(" code=")[0] for line in lines] == [
        "health problem reported",
        "health problem cleared",
    ] * 2
    assert "raised ValueError (test_liveness.py line" in lines[0]
    assert program.vision_readings().refusals["not_live"] == 5


def test_a_policy_of_visitors_registers_no_face_that_is_not_live(program, monkeypatch):
    """A picture held up at an open site becomes no visitor."""
    camera = Faces(1)
    offered = []
    registrations = program._registrations
    monkeypatch.setattr(registrations, "_policy", "visitors")
    monkeypatch.setattr(registrations, "offer_visitor", lambda *face: offered.append(face))
    monkeypatch.setattr(program, "_suppressed_reason", lambda: None)
    monkeypatch.setattr(program._pipeline, "_suppressed_reason", lambda: None)
    monkeypatch.setattr(program._pipeline, "_detector", camera)
    monkeypatch.setattr(program._pipeline, "_quality", camera)
    stage = program._recognition.liveness
    frames = frames_of(camera)
    for score, visitors in ((0.1, 0), (0.9, 1)):
        monkeypatch.setattr(stage, "_check", ScriptedCheck([score]))
        for frame, _ in zip(frames, range(6), strict=False):
            program._process_frame(frame)
        assert len(offered) == visitors


# Emotions


class Glad:
    """A classifier of one emotion."""

    def classify(self, faces):
        return [Emotion("glad", "EV2.2", 0.9)] * len(faces)


def test_an_emotion_event_has_the_lowest_score_of_its_run():
    """A face that is not live interrupts the run."""
    now = [0.0]

    def emotions_of(*scores, threshold=None):
        validator = EmotionEventValidator("cam-001", min_duration_ms=300, clock=lambda: now[0])
        camera = Camera(ScriptedCheck(*scores), threshold, emotions=EmotionStage(Glad(), validator))
        found = []
        for _ in scores:
            now[0] += 0.1
            found += [event for event in camera.events(1) if event.event_type == "emotion"]
        return found

    [event] = emotions_of([0.9], [0.9], [0.9], [0.3], [0.8], [0.9])
    assert liveness_of(event) == {"score": 0.3, "method": "depth"}
    [event] = emotions_of([0.9], [0.9], [0.9], [math.nan], [0.8], [0.9])
    assert "liveness" not in event.metadata
    assert emotions_of(*[[0.9], [0.9], [0.9], [0.9], [0.1]] * 4, threshold=0.5) == []


# The page


def test_the_example_on_the_page_of_models_is_a_check():
    """The example runs with a sensor in its place."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    section = page[page.index("## Bring a liveness check") :]
    [example] = re.findall(r"```python\n(.*?)```", section[: section.index("\n## ")], re.DOTALL)
    sensor = type("Sensor", (), {"picture_at": lambda self, at: at})()
    namespace = {"open_depth_sensor": lambda: sensor}
    exec(example, namespace)
    check = namespace["DepthCheck"]
    check.score = lambda self, relief, box: 0.8
    camera = Camera(check())
    assert camera.see()[0].sightings[0].liveness == Liveness(score=0.8, method="depth")
