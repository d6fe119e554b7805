"""When a shown emotion becomes an event, and the reasons when it does not."""

from collections import Counter
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.events.decision import UNCONFIRMED, EventDecision
from device.events.emotion_validator import EmotionEventValidator
from device.recognition.emotions import EmotionStage
from device.recognition.sighting import Sighting
from device.vision.detectors.detector import FaceBox
from device.vision.emotion import Emotion
from device.vision.inference.session import ModelError

AT = datetime(2026, 1, 15, 10, 0, 5, tzinfo=timezone.utc)


class Door:
    """A validator with the clock of the test; `see` is one frame of a track."""

    def __init__(self, **settings):
        self.now = 0.0
        self.validator = EmotionEventValidator(
            "cam-001", clock=lambda: self.now, wall_clock=lambda: AT, new_suffix=lambda: "d4e5f6", **settings
        )

    def see(self, code="EV2.2", confidence=0.88, user="EMP-12345", track="face_0", step=0.1, **more):
        self.now += step
        return self.validator.process_emotion(track, user, code, confidence, **more)

    def see_many(self, count, **more):
        return [self.see(**more) for _ in range(count)]


def test_half_a_second_of_one_emotion_is_an_event():
    """The payload is that of seed 003; the sixth frame completes 500 ms."""
    door = Door()
    confidences = [0.7, 0.9, 0.8, 0.8, 0.9, 0.7]
    events = [door.see(confidence=confidence) for confidence in confidences]
    assert events[:5] == [None] * 5
    assert events[5].model_dump(mode="json", exclude_none=True) == {
        "event_id": "EV2.2-1768471205000-d4e5f6",
        "device_id": "cam-001",
        "user_id": "EMP-12345",
        "event_type": "emotion",
        "emotion_code": "EV2.2",
        "timestamp": "2026-01-15T10:00:05.000Z",
        "confidence": 0.8,
        "metadata": {"intensity": 0.8, "duration_ms": 500, "track_id": "face_0", "frames_tracked": 6},
    }
    assert door.validator.refusals == Counter(too_short=5)


def test_a_given_intensity_is_kept_unless_it_is_no_number():
    """Otherwise the intensity is the mean confidence of the run."""
    assert Door(min_duration_ms=0).see(intensity=0.75).metadata["intensity"] == 0.75
    assert Door(min_duration_ms=0).see(intensity=float("nan")).metadata["intensity"] == 0.88
    assert Door(min_duration_ms=0).see(intensity=3.0).metadata["intensity"] == 1.0


@pytest.mark.parametrize(
    ("odd_frame", "reason"),
    [
        ({"confidence": 0.69}, "low_confidence"),
        ({"confidence": float("nan")}, "low_confidence"),
        ({"confidence": float("inf")}, "low_confidence"),
        ({"user": None}, "unknown_person"),
        ({"code": None}, "no_code"),
        ({"code": "EV2.5"}, "too_short"),
        ({"user": "EMP-9"}, "too_short"),
        ({"step": 1.2}, "too_short"),
    ],
)
def test_an_interruption_restarts_the_duration(odd_frame, reason):
    """Five good frames after an odd one make no event, the sixth does."""
    door = Door()
    assert door.see_many(5) == [None] * 5
    before = door.validator.refusals.copy()
    assert door.see(**odd_frame) is None
    assert door.validator.refusals - before == Counter([reason])
    # A gap precedes its frame, which is the first of the new run.
    counted_frames = 1 if "step" in odd_frame else 0
    assert door.see_many(5 - counted_frames) == [None] * (5 - counted_frames)
    event = door.see()
    assert event.metadata["frames_tracked"] == 6
    assert event.metadata["duration_ms"] == 500


def test_an_unknown_face_gives_no_event():
    """A recognised identity is required, however long the emotion lasts."""
    door = Door()
    assert door.see_many(50, user=None) == [None] * 50
    assert door.validator.refusals == Counter(unknown_person=50)


def test_a_lasting_smile_is_one_event_per_cooldown():
    """Each event has the duration so far."""
    door = Door()
    events = [event for event in door.see_many(300) if event]
    assert [event.metadata["duration_ms"] for event in events] == pytest.approx([500, 10500, 20500], abs=101)
    assert door.validator.refusals["cooldown"] == 300 - 3 - 5


def test_the_cooldown_applies_to_an_identity_and_a_code():
    """Another code or identity has its own cooldown; another track has not."""
    door = Door(min_duration_ms=0)
    assert door.see() is not None
    assert door.see(track="face_1") is None
    assert door.see(code="EV2.3") is not None
    assert door.see(user="EMP-9", track="face_2") is not None
    assert door.validator.refusals == Counter(cooldown=1)


def test_two_faces_at_once_have_separate_durations():
    """Each track has its own duration."""
    door = Door()
    events = [door.see(user=user, track=user, step=0.05) for _ in range(6) for user in ("EMP-1", "EMP-2")]
    assert [event.user_id for event in events if event] == ["EMP-1", "EMP-2"]


def test_a_repeated_or_older_frame_is_ignored():
    """The same frame for a second counts as one frame."""
    door = Door()
    assert [door.see(frame_id=frame) for frame in (7, 7, 6, 7, 7, 7, 7)] == [None] * 7
    assert door.validator.refusals == Counter(too_short=1, repeated_frame=6)
    assert door.see(frame_id=8) is not None


@pytest.mark.parametrize("code", ["happy", "EV1", "EV2.", "EV2.1234", "EV2.2-1", ""])
def test_an_invalid_code_is_refused_at_once(code):
    """The first frame raises, not the event half a second later."""
    with pytest.raises(ValueError, match="expected an emotion code EV2"):
        Door().see(code=code)


@pytest.mark.parametrize(
    "settings",
    [
        {"confidence_threshold": 0},
        {"confidence_threshold": 70},
        {"min_duration_ms": -1},
        {"max_gap_seconds": 0},
    ],
)
def test_invalid_settings_are_refused(settings):
    """A threshold of 70 means 0.7."""
    with pytest.raises(ValueError, match=r"expected .*, got"):
        Door(**settings)


def test_memory_stays_bounded_over_a_day():
    """A new face every two seconds for 24 hours leaves only the newest in memory."""
    door = Door(min_duration_ms=100)
    events = 0
    for number in range(24 * 1800):
        for step in (1.8, 0.2):
            event = door.see(user=f"EMP-{number}", track=f"face_{number}", step=step)
            events += event is not None
        assert door.validator.tracks_in_memory <= 1
        assert door.validator.cooldowns_in_memory <= 6
    assert events == 24 * 1800


FRAMES = st.lists(
    st.tuples(
        st.sampled_from(["face_0", "face_1"]),
        st.sampled_from([None, "EMP-1", "EMP-1", "EMP-2"]),
        st.sampled_from([None, "EV2.1", "EV2.2", "EV2.2"]),
        st.one_of(st.floats(0.6, 1.0), st.sampled_from([0.95, 0.95, float("nan")])),
        st.sampled_from([0.0, 0.125, 0.25, 2.0]),
    ),
    max_size=120,
)


@given(FRAMES, st.sampled_from([0.0, 250.0, 500.0]), st.sampled_from([0.0, 1.0]))
def test_any_frames_give_an_event_or_a_reason(frames, min_duration_ms, cooldown):
    """Every event has an unbroken run of frames of its track."""
    door = Door(min_duration_ms=min_duration_ms, cooldown_seconds=cooldown)
    seen: dict[str, list] = {}
    last_event: dict[tuple, float] = {}
    events = 0
    for track, user, code, confidence, step in frames:
        event = door.see(code, confidence, user, track, step)
        history = seen.setdefault(track, [])
        history.append((door.now, user, code, confidence))
        if event is None:
            continue
        events += 1
        assert (event.user_id, event.emotion_code) == (user, code)
        assert door.now - last_event.get((user, code), -100.0) >= cooldown
        last_event[user, code] = door.now
        run = [history[-1]]
        for frame in reversed(history[:-1]):
            if frame[1:3] != (user, code) or not frame[3] >= 0.7 or run[-1][0] - frame[0] > 1.0:
                break
            run.append(frame)
        assert (door.now - run[-1][0]) * 1000 >= min_duration_ms
        assert event.metadata["duration_ms"] == (door.now - run[-1][0]) * 1000
        assert event.confidence == pytest.approx(sum(frame[3] for frame in run) / len(run), abs=1e-4)
    assert events + sum(door.validator.refusals.values()) == len(frames)


@given(st.lists(st.floats(0.7, 1.0), min_size=6, max_size=30))
def test_half_a_second_without_a_break_is_an_event(confidences):
    """Any confidences above the threshold make one event, at the sixth frame."""
    door = Door()
    events = [door.see(confidence=confidence) for confidence in confidences]
    assert [position for position, event in enumerate(events) if event] == [5]


class Smiling:
    """A classifier that returns happy for every face and records the numbers of faces."""

    def __init__(self):
        self.face_counts = []

    def classify(self, faces):
        self.face_counts.append(len(faces))
        return [Emotion("happiness", "EV2.2", 0.9) for _ in faces]


def sighting(track, person, quality_reason=None):
    decision = EventDecision(None, UNCONFIRMED, person)
    return Sighting(track, FaceBox(1, 2, 60, 60), None, quality_reason, None, None, decision)


def test_only_recognised_faces_are_classified():
    """An unknown face never reaches the network; the event belongs to its face."""
    door, classifier = Door(min_duration_ms=0), Smiling()
    stage = EmotionStage(classifier, door.validator)
    faces = np.zeros((3, 112, 112, 3), np.uint8)
    seen = [sighting("face_0", None), sighting("face_1", "EMP-1"), sighting("face_2", None, "blurred")]
    [(event, box)] = stage.read_emotions(faces, seen, 1)
    assert (event.user_id, box) == ("EMP-1", FaceBox(1, 2, 60, 60))
    assert classifier.face_counts == [1]


@pytest.mark.parametrize("answer", [ModelError("emotion.onnx: the network failed"), Emotion(None, None, 0.0)])
def test_a_failing_network_breaks_the_run_and_is_reported(answer):
    """A run with a gap is too short; the next valid answer clears the failure."""
    door = Door()
    answers = [Emotion("happiness", "EV2.2", 0.9)] * 4 + [answer] + [Emotion("happiness", "EV2.2", 0.9)] * 6

    class Answering:
        def classify(self, faces):
            door.now += 0.1
            now = answers.pop(0)
            if isinstance(now, ModelError):
                raise now
            return [now]

    stage = EmotionStage(Answering(), door.validator)
    face, seen = np.zeros((1, 112, 112, 3), np.uint8), [sighting("face_0", "EMP-1")]
    events, failures = [], []
    for frame in range(11):
        events.append(len(stage.read_emotions(face, seen, frame)))
        failures.append(stage.failure)
    assert events == [0] * 10 + [1]
    assert [bool(failure) for failure in failures] == [False] * 4 + [True] + [False] * 6
    assert stage.refusals["emotion_low_confidence"] == 1
