"""When a recognition becomes an event, and the reasons when it does not."""

from collections import Counter
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.events.event_validator import EventValidator
from device.events.match_limits import MatchLimits

AT = datetime(2025, 1, 15, 12, 0, 0, tzinfo=timezone.utc)


class Door:
    """A validator with the clock of the test; `see` is one frame of a track."""

    def __init__(self, **settings):
        self.now = 0.0
        self.frame = 0
        self.validator = EventValidator(
            "cam-001", clock=lambda: self.now, wall_clock=lambda: AT, new_suffix=lambda: "a1b2c3", **settings
        )

    def see(self, user_id="EMP-12345", distance=0.28, track="face_0", step=0.1, **more):
        self.now += step
        self.frame += 1
        return self.validator.process_recognition(track, user_id, distance, self.frame, **more)

    def see_many(self, users, **more):
        return [self.see(user, **more) for user in users]


def test_the_fifth_frame_of_an_identity_is_an_event():
    """The payload is that of seed 003, with the metadata of the frames."""
    door = Door()
    distances = [0.30, 0.26, 0.28, 0.29, 0.27]
    events = [
        door.see(
            distance=distance, margin=0.2, inference_ms=45, space="face:resnet29-512", gallery_version=812
        )
        for distance in distances
    ]
    assert events[:4] == [None] * 4
    assert events[4].model_dump(mode="json", exclude_none=True) == {
        "event_id": "EV1-1736942400000-a1b2c3",
        "device_id": "cam-001",
        "user_id": "EMP-12345",
        "event_type": "facial_id",
        "timestamp": "2025-01-15T12:00:00.000Z",
        "confidence": 0.72,
        "metadata": {
            "distance": 0.28,
            "frames_tracked": 5,
            "inference_ms": 45,
            "track_id": "face_0",
            "margin": 0.2,
            "space": "face:resnet29-512",
            "gallery_version": 812,
        },
    }
    assert door.validator.refusals == Counter(unconfirmed=4)


def test_the_seeds_call_works_as_written():
    """The parameters are keywords, and the clocks are real."""
    validator = EventValidator(
        device_id="cam-001", confirmation_frames=5, consistency_threshold=0.8, cooldown_seconds=30
    )
    events = [
        validator.process_recognition(track_id="face_0", user_id="EMP-123", distance=0.28, frame_id=frame)
        for frame in range(100, 105)
    ]
    assert [event is not None for event in events] == [False] * 4 + [True]
    assert abs((datetime.now(timezone.utc) - events[4].timestamp).total_seconds()) < 5


def test_a_given_confidence_is_kept():
    """Otherwise the confidence is the mean cosine similarity."""
    door = Door(confirmation_frames=1)
    assert door.see(confidence=0.92).confidence == 0.92
    assert door.see("EMP-2", distance=-0.0000001, track="t2").confidence == 1.0


@pytest.mark.parametrize("odd_user", [None, "EMP-9"])
def test_an_odd_newest_frame_delays_the_event(odd_user):
    """Four of five frames agree, so the next agreeing frame makes the event."""
    door = Door()
    events = [door.see(user) for user in ["EMP-1"] * 4 + [odd_user, "EMP-1"]]
    assert [event is not None for event in events] == [False] * 5 + [True]


def test_a_deleted_identity_makes_no_event():
    """The window still has four of its frames, but the newest has no match."""
    door = Door()
    assert [door.see(user) for user in ["EMP-1"] * 4 + [None] * 20] == [None] * 24


@pytest.mark.parametrize("odd_user", [None, "EMP-9"])
@pytest.mark.parametrize("position", range(4))
def test_one_odd_frame_in_five_is_tolerated_before_the_newest(odd_user, position):
    """Four of five is 80 %; the mean distance omits the odd frame."""
    users = ["EMP-1"] * 5
    users[position] = odd_user
    door = Door()
    events = [door.see(user, distance=0.2 if user == "EMP-1" else 0.3) for user in users]
    assert [event is not None for event in events] == [False] * 4 + [True]
    assert events[4].user_id == "EMP-1"
    assert events[4].metadata["distance"] == 0.2


def test_two_odd_frames_in_five_are_too_many():
    """60 % is inconsistent; the event comes when the oldest odd frame is out."""
    door = Door()
    assert door.see_many(["EMP-9", "EMP-1", "EMP-9", "EMP-1", "EMP-1"]) == [None] * 5
    assert door.validator.refusals == Counter(unconfirmed=4, inconsistent_track=1)
    assert door.see("EMP-1") is not None


def test_a_face_past_the_distance_counts_against_consistency():
    """A distance that is not a number counts against consistency too."""
    door = Door()
    assert [door.see(distance=d) for d in (0.36, float("nan"), 0.3, 0.3, 0.3)] == [None] * 5
    assert door.validator.refusals == Counter(below_threshold=2, unconfirmed=2, inconsistent_track=1)
    assert Door(confirmation_frames=1).see(distance=0.35) is not None


def test_an_unknown_face_gives_no_event():
    """The rule holds however long the face stays."""
    door = Door()
    assert door.see_many([None] * 50, distance=2.0) == [None] * 50
    assert door.validator.refusals == Counter(no_match=50)


def test_a_present_identity_makes_an_event_per_cooldown():
    """The events are exactly thirty seconds apart."""
    door = Door()
    at = [door.now for _ in range(1000) if door.see() is not None]
    assert at == pytest.approx([0.5, 30.5, 60.5, 90.5], abs=0.11)
    assert door.validator.refusals["cooldown"] == 1000 - 4 - 4


def test_two_tracks_of_one_identity_give_one_event():
    """The cooldown applies to the identity."""
    door = Door()
    events = [door.see(track=track) for _ in range(10) for track in ("face_0", "face_1")]
    assert sum(event is not None for event in events) == 1


def test_two_identities_at_once_each_give_an_event():
    """Tracks and cooldowns are separate."""
    door = Door()
    events = [door.see(user, track=user) for _ in range(5) for user in ("EMP-1", "EMP-2")]
    assert [event.user_id for event in events if event] == ["EMP-1", "EMP-2"]


def test_a_repeated_or_older_frame_is_ignored():
    """The same frame five times counts as one frame."""
    validator = EventValidator("cam-001", clock=lambda: 0.0)
    for frame in (7, 7, 6, 7, 7, 8, 9):
        assert validator.process_recognition("face_0", "EMP-1", 0.1, frame) is None
    assert validator.refusals == Counter(unconfirmed=3, repeated_frame=4)


def test_a_track_that_was_absent_too_long_starts_again():
    """Four frames, a gap of six seconds and one frame make no event."""
    door = Door()
    door.see_many(["EMP-1"] * 4)
    assert door.see("EMP-1", step=5.1) is None
    assert door.see_many(["EMP-1"] * 4)[-1] is not None


def test_memory_stays_bounded_over_days():
    """After three days of new tracks and identities only the newest are in memory."""
    door = Door(confirmation_frames=2)
    events = 0
    for number in range(3 * 24 * 120):
        events += door.see(f"EMP-{number}", track=f"face_{number}", step=29.9) is not None
        events += door.see(f"EMP-{number}", track=f"face_{number}") is not None
        assert door.validator.tracks_in_memory <= 1
        assert door.validator.cooldowns_in_memory <= 2
    assert events == 3 * 24 * 120


@pytest.mark.parametrize("settings", [{"confirmation_frames": 0}, {"consistency_threshold": 0}])
def test_invalid_settings_are_refused(settings):
    """An empty window would make an event of every frame."""
    with pytest.raises(ValueError, match=r"expected .*, got 0"):
        Door(**settings)


def test_a_clock_before_1970_still_gives_a_valid_event():
    """The backend checks the time."""
    validator = EventValidator(
        "cam-001", confirmation_frames=1, wall_clock=lambda: datetime(1969, 1, 1, tzinfo=timezone.utc)
    )
    event = validator.process_recognition("face_0", "EMP-1", 0.1, 1)
    assert event is not None
    assert event.event_id.startswith("EV1-0-")


FRAMES = st.lists(
    st.tuples(
        st.sampled_from(["face_0", "face_1", "face_2"]),
        st.sampled_from([None, "EMP-1", "EMP-2"]),
        st.floats(0, 0.6),
        st.sampled_from([0.0, 0.05, 1.0, 6.0]),
        st.integers(-1, 1),
    ),
    max_size=150,
)


@given(FRAMES, st.integers(1, 6), st.sampled_from([0.5, 0.6, 0.8, 1.0]), st.sampled_from([0.0, 3.0]))
def test_any_frames_give_an_event_or_a_reason(frames, needed, consistency, cooldown):
    """Every event has agreeing frames of its track."""
    door = Door(confirmation_frames=needed, consistency_threshold=consistency, cooldown_seconds=cooldown)
    seen: dict[str, list] = {}
    last_event: dict[str, float] = {}
    last_frame: dict[str, tuple[int, float]] = {}
    events = 0
    for track, user, distance, step, ahead in frames:
        door.now += step
        old_frame, old_at = last_frame.get(track, (0, -100.0))
        if door.now - old_at > 5.0:
            seen[track] = []
            old_frame = -10
        frame = old_frame + ahead
        event = door.validator.process_recognition(track, user, distance, frame)
        if ahead > 0 or not seen[track]:
            seen[track].append(user if distance <= 0.35 else None)
            last_frame[track] = (frame, door.now)
        window = seen[track][-needed:]
        if event is not None:
            events += 1
            assert len(window) == needed
            assert window.count(event.user_id) >= consistency * needed - 1e-9
            assert door.now - last_event.get(event.user_id, -100.0) >= cooldown
            last_event[event.user_id] = door.now
            assert 0 <= event.confidence <= 1
    assert events + sum(door.validator.refusals.values()) == len(frames)


def test_a_lead_too_small_is_no_match():
    """Two identities at a similar distance make no event."""
    door = Door(min_margin=0.05)
    assert door.see_many(["EMP-1"] * 5, margin=0.049) == [None] * 5
    assert door.validator.refusals == Counter(low_margin=5)
    assert [event is not None for event in door.see_many(["EMP-1"] * 4, margin=0.06)][-1]


def test_suppressed_frames_are_no_evidence():
    """Blurred frames count neither for nor against an identity.

    Each is counted by its reason.
    """
    door = Door()
    decisions = []
    for number in range(10):
        door.now += 0.1
        door.frame += 1
        suppressed_reason = "low_quality" if number % 2 else None
        decisions.append(
            door.validator.decide("face_0", "EMP-1", 0.2, door.frame, suppressed_reason=suppressed_reason)
        )
    assert [position for position, decision in enumerate(decisions) if decision.event] == [8]
    assert door.validator.refusals == Counter(low_quality=5, unconfirmed=4)


def test_five_seconds_of_suppressed_frames_clear_the_window():
    """The four frames before them no longer count."""
    door = Door()
    door.see_many(["EMP-1"] * 4)
    for _ in range(60):
        door.now += 0.1
        door.frame += 1
        door.validator.decide("face_0", "EMP-1", 0.2, door.frame, suppressed_reason="low_quality")
    assert door.see("EMP-1") is None


def suppress(door, seconds, reason="low_quality"):
    """See frames with a suppressed reason for `seconds`."""
    for _ in range(round(seconds * 10)):
        door.now += 0.1
        door.frame += 1
        door.validator.decide("face_0", "EMP-1", 0.2, door.frame, suppressed_reason=reason)


def test_an_unknown_face_that_looks_away_stays_one_track():
    """One face in the picture makes one unknown event and one visitor."""
    door = Door(unknown_events=True)
    events = door.see_many([None] * 5)
    suppress(door, 60.0)
    events += door.see_many([None] * 10)
    assert [position for position, event in enumerate(events) if event] == [4]
    assert door.validator.tracks_in_memory == 1


def test_an_identity_that_looks_away_is_not_unknown():
    """A track that had an identity makes no unknown event, also after poor frames."""
    door = Door(unknown_events=True)
    door.see_many(["EMP-1"] * 5)
    suppress(door, 60.0)
    assert door.see_many([None] * 10) == [None] * 10


def test_a_decision_has_the_identity_during_the_cooldown():
    """Emotions of an identity are events also after its event."""
    door = Door()
    door.see_many(["EMP-1"] * 5)
    door.now += 0.1
    decision = door.validator.decide("face_0", "EMP-1", 0.2, door.frame + 1)
    assert (decision.event, decision.reason, decision.user_id) == (None, "cooldown", "EMP-1")


def test_a_track_without_a_match_is_unknown_once():
    """The next track makes another unknown event."""
    door = Door(unknown_events=True)
    events = [door.see("EMP-1", distance=0.8) for _ in range(20)]
    assert [position for position, event in enumerate(events) if event] == [4]
    unknown = events[4]
    assert (unknown.event_type, unknown.user_id, unknown.confidence) == ("unknown", None, 1.0)
    assert unknown.event_id.startswith("EV4-")
    assert unknown.metadata == {"distance": 0.8, "frames_tracked": 5, "track_id": "face_0"}
    assert any(door.see("EMP-1", distance=0.8, track="face_1") for _ in range(5))
    assert door.validator.refusals == Counter(below_threshold=15 + 4 + 4)


def test_a_recognised_track_never_becomes_unknown():
    """The track had an identity before."""
    door = Door(unknown_events=True)
    assert door.see_many(["EMP-1"] * 5)[-1]
    assert not any(door.see("EMP-1", distance=0.9) for _ in range(20))


def test_a_face_between_two_identities_is_not_unknown():
    """A low margin is not a missing match."""
    door = Door(unknown_events=True, min_margin=0.05)
    assert not any(door.see("EMP-1", margin=0.01) for _ in range(20))


def test_unknown_events_are_off_by_default():
    """Seed 003 has no unknown events."""
    door = Door()
    assert not any(door.see(None, distance=2.0) for _ in range(20))


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf")])
def test_a_distance_that_is_no_number_makes_a_valid_unknown_event(nonsense):
    """JSON has no NaN, so the event omits the distance."""
    door = Door(unknown_events=True)
    event = [door.see("EMP-1", distance=nonsense) for _ in range(5)][-1]
    assert event.event_type == "unknown"
    assert "distance" not in event.metadata


def test_tighter_limits_judge_the_frames_again():
    """Frames that are no match any more do not confirm an identity."""
    door = Door()
    assert door.see_many(["EMP-1"] * 4, distance=0.3) == [None] * 4
    door.validator.change_limits(MatchLimits(0.2))
    assert door.see("EMP-1", distance=0.1) is None
    assert door.validator.refusals["inconsistent_track"] == 1


def test_looser_limits_keep_the_evidence_of_a_track():
    """Four frames past the old distance and one more are an event."""
    door = Door(distance_threshold=0.25)
    door.see_many(["EMP-1"] * 4, distance=0.3)
    door.validator.change_limits(MatchLimits(0.35))
    assert door.see("EMP-1", distance=0.3).user_id == "EMP-1"
    assert door.validator.limits == MatchLimits(0.35)


def test_much_looser_limits_drop_it():
    """The nearest identity of those frames was not searched so far away."""
    door = Door(distance_threshold=0.2)
    door.see_many(["EMP-1"] * 4, distance=0.5)
    door.validator.change_limits(MatchLimits(0.6))
    assert door.see("EMP-1", distance=0.5) is None
    assert [event is not None for event in door.see_many(["EMP-1"] * 4, distance=0.5)] == [False] * 3 + [True]


def test_the_same_limits_change_nothing():
    """A head that repeats them costs no evidence."""
    door = Door()
    door.see_many(["EMP-1"] * 4)
    door.validator.change_limits(MatchLimits(0.35))
    assert door.see("EMP-1").user_id == "EMP-1"


def test_a_changed_margin_is_judged_again_too():
    """Frames that were too close to a second identity count after it."""
    door = Door(min_margin=0.2)
    door.see_many(["EMP-1"] * 4, margin=0.1)
    door.validator.change_limits(MatchLimits(0.35, 0.05))
    assert door.see("EMP-1", margin=0.1).user_id == "EMP-1"
