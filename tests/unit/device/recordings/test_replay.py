"""Replay recorded scores under other settings."""

import dataclasses
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import to_array
from deploy.local.sample_video import FPS, IDENTITIES, enrollment_photo, make_sample
from device.cli.replay import replay as replay_command
from device.events.decision import NOT_LIVE, QUARANTINED
from device.recognition.assembly import build_recognition
from device.recordings.format import RecordedSettings, find_recordings
from device.recordings.recorder import ScoreRecorder
from device.recordings.replay import SeenEvent, compare, replay
from device.settings import DeviceSection, QualitySettings
from device.vision.capture.camera import open_camera
from device.vision.detectors.loader import load_detector
from device.vision.gallery import Gallery
from device.vision.photo_embedder import PhotoEmbedder
from tests.device_samples import NOON
from tests.recorded_door import RecordedDoor


def replayed(folder, **changes):
    return replay(find_recordings(folder)[0], changes)


def kinds(result):
    return [
        (change.kind, change.event.user_id) for change in compare(result.before.events, result.after.events)
    ]


def run_command(*arguments):
    app = typer.Typer()
    app.command()(replay_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


@pytest.fixture
def door(tmp_path):
    return RecordedDoor(tmp_path)


def test_a_real_run_replays_to_exactly_its_events_and_refusals(tmp_path):
    """The sample video replays to the same frames, tracks, identities and reasons."""
    # The sharpness limit is above that of some sample faces, so that quality rejects them.
    device = DeviceSection(
        id="cam-001", site="lobby", cooldown_seconds=2.0, quality=QualitySettings(min_sharpness=70.0)
    )
    recognition = build_recognition(device)
    photos = PhotoEmbedder(load_detector(), recognition.embedder)
    vectors = [to_array(photos.embed_photo(enrollment_photo(row)).vector) for row in IDENTITIES.values()]
    recognition.galleries.swap(Gallery(recognition.space, list(IDENTITIES), np.stack(vectors), version=6))
    pipeline = recognition.build_pipeline(suppressed_reason=lambda: None, on_event=lambda *_: None)
    settings = RecordedSettings(
        device_id=device.id,
        space=DEFAULT_FACE_SPACE.space,
        distance_threshold=DEFAULT_FACE_SPACE.limits.distance,
        min_margin=DEFAULT_FACE_SPACE.limits.margin,
        confirmation_frames=device.confirmation_frames,
        consistency_threshold=device.consistency_threshold,
        cooldown_seconds=device.cooldown_seconds,
        unknown_events=device.unknown_events,
    )
    recorder = ScoreRecorder(tmp_path / "scores", 1 << 20, settings)
    happened = []
    sample = make_sample(tmp_path, cameras=1)[0]
    with open_camera(str(sample.path), fps=0) as frames:
        for frame in frames:
            taken_at = 1000.1 + frame.index / FPS
            report = pipeline.process(dataclasses.replace(frame, captured_at=taken_at))
            recorder.record(report)
            happened += [
                (report.index, seen.track_id, event.event_type, event.user_id)
                for seen in report.sightings
                if (event := seen.decision.event)
            ]
    recorder.close()

    result = replayed(tmp_path / "scores")
    assert [
        (event.frame, event.track_id, event.event_type, event.user_id) for event in result.before.events
    ] == happened
    assert {"facial_id", "unknown"} <= {event_type for _, _, event_type, _ in happened}
    assert result.before.events == result.recorded.events == result.after.events
    assert (
        result.before.refusals == result.recorded.refusals == result.after.refusals == recognition.refusals()
    )
    assert {"low_quality", "cooldown", "unconfirmed", "below_threshold"} <= set(recognition.refusals())


def test_a_distance_threshold_removes_and_adds_events(door, tmp_path):
    """EMP-1 is at 0.30 and EMP-2 at 0.40; the recorded threshold is 0.35."""
    for user, distance in (("EMP-1", 0.30), ("EMP-2", 0.40)):
        for _ in range(6):
            door.see(door.face(user, distance, track=user))
    door.recorder.close()
    assert kinds(replayed(tmp_path)) == [("stays", "EMP-1"), ("stays", None)]
    assert kinds(replayed(tmp_path, distance_threshold=0.25)) == [
        ("vanishes", "EMP-1"),
        ("new", None),
        ("stays", None),
    ]
    assert kinds(replayed(tmp_path, distance_threshold=0.45)) == [
        ("stays", "EMP-1"),
        ("vanishes", None),
        ("new", "EMP-2"),
    ]


def test_frames_that_were_not_live_end_the_row_again(door, tmp_path):
    """A replay has no check: it takes the recorded reason, with its effect."""
    for live in [True, True, True, True, False] * 3 + [True] * 5:
        door.see(door.face(suppressed_reason=None if live else NOT_LIVE))
    door.recorder.close()
    result = replayed(tmp_path)
    assert kinds(result) == [("stays", "EMP-1")]
    assert result.after.refusals == {"not_live": 3, "unconfirmed": 16}


def test_a_margin_removes_an_event(door, tmp_path):
    """The two nearest identities are 0.2 apart."""
    for _ in range(6):
        door.see(door.face())
    door.recorder.close()
    result = replayed(tmp_path, min_margin=0.25)
    assert kinds(result) == [("vanishes", "EMP-1")]
    assert result.after.refusals == {"low_margin": 6}


def test_fewer_confirmation_frames_move_an_event_forward(door, tmp_path):
    """With three frames instead of five the same event is two frames earlier."""
    for _ in range(8):
        door.see(door.face())
    door.recorder.close()
    result = replayed(tmp_path, confirmation_frames=3)
    [change] = compare(result.before.events, result.after.events)
    assert change.kind == "stays"
    assert (change.before.frame, change.after.frame) == (4, 2)
    assert change.after.seconds - change.before.seconds == pytest.approx(-0.2)


def test_a_shorter_cooldown_adds_events(door, tmp_path):
    """Over a minute, an event every 30 s becomes one every 10 s."""
    for _ in range(620):
        door.see(door.face())
    door.recorder.close()
    found = kinds(replayed(tmp_path, cooldown_seconds=10.0))
    assert [kind for kind, _ in found] == ["stays", "new", "new", "stays", "new", "new", "stays"]


def test_a_looser_consistency_adds_an_event(door, tmp_path):
    """Every other frame matches another identity."""
    for number in range(10):
        door.see(door.face("EMP-1" if number % 2 else "EMP-2"))
    door.recorder.close()
    assert kinds(replayed(tmp_path)) == []
    assert kinds(replayed(tmp_path, consistency_threshold=0.5)) == [("new", "EMP-2"), ("new", "EMP-1")]


def test_suppressed_frames_stay_suppressed(door, tmp_path):
    """A blurred face and a quarantined model have no recorded distance."""
    for _ in range(6):
        door.see(
            door.face(quality_reason="blurred"), door.face(track="face_1", suppressed_reason=QUARANTINED)
        )
    door.recorder.close()
    result = replayed(tmp_path, distance_threshold=2.0, confirmation_frames=1, min_margin=0.0)
    assert result.after.events == []
    assert result.after.refusals == {"low_quality": 6, "quarantined": 6}


def test_each_run_starts_with_its_own_settings(tmp_path):
    """A restart clears cooldowns, and the second run has another threshold."""
    for distance_threshold in (0.35, 0.25):
        door = RecordedDoor(tmp_path, distance_threshold=distance_threshold, unknown_events=False)
        for _ in range(6):
            door.see(door.face(distance=0.2))
            door.see(door.face("EMP-2", distance=0.3, track="face_1"))
        door.recorder.close()
    result = replayed(tmp_path)
    assert [(event.run, event.user_id) for event in result.before.events] == [
        (1, "EMP-1"),
        (1, "EMP-2"),
        (2, "EMP-1"),
    ]
    assert result.before.events == result.recorded.events


def test_files_of_one_run_are_one_recording(tmp_path):
    """A confirmation window that starts in one file ends in the next."""
    door = RecordedDoor(tmp_path, 64 * 1024, cooldown_seconds=3.0)
    for _ in range(200):
        door.see(door.face())
    door.recorder.close()
    assert len(list(tmp_path.iterdir())) > 1
    result = replayed(tmp_path)
    assert result.before.events == result.recorded.events
    assert [event.frame for event in result.before.events] == [frame for frame, _, _ in door.events]
    assert result.begins_late == 0


def test_a_recording_without_its_start_is_reported(tmp_path):
    """The oldest files were deleted, so the first decisions lack their frames."""
    door = RecordedDoor(tmp_path, 16 * 1024)
    for _ in range(300):
        door.see(door.face())
    door.recorder.close()
    assert replayed(tmp_path).begins_late == 1
    answer = run_command(tmp_path)
    assert answer.exit_code == 0
    assert "the recording starts in mid-run" in answer.stderr
    assert "under its own settings the replay has 1 events, the device had 0" in answer.stderr


def seen(seconds, user="EMP-1", track="face_0", run=1):
    return SeenEvent(run, round(seconds * 10), seconds, NOON, track, user, "facial_id", 0.3)


def test_an_event_stays_if_each_is_the_nearest_of_the_other():
    """Compared events have the same track, identity and run."""
    changes = compare([seen(0.5), seen(30.5), seen(60.5)], [seen(0.5), seen(25.5), seen(50.5), seen(75.5)])
    assert [
        (each.kind, each.before and each.before.seconds, each.after and each.after.seconds)
        for each in changes
    ] == [("stays", 0.5, 0.5), ("stays", 30.5, 25.5), ("stays", 60.5, 50.5), ("new", None, 75.5)]
    [first, second] = compare([seen(0.5), seen(30.5)], [seen(29.0)])
    assert (first.kind, second.kind, second.before.seconds) == ("vanishes", "stays", 30.5)
    for other in (seen(0.5, user="EMP-2"), seen(0.5, track="face_1"), seen(0.5, run=2)):
        assert {each.kind for each in compare([seen(0.5)], [other])} == {"vanishes", "new"}
    assert compare([], []) == []


def test_the_command_prints_events_and_reasons(door, tmp_path):
    """The table shows the changed events first, then the reasons."""
    for user, distance in (("EMP-1", 0.20), ("EMP-2", 0.30)):
        for _ in range(6):
            door.see(door.face(user, distance, track=user))
    door.recorder.close()
    answer = run_command(tmp_path, "--distance-threshold", "0.25", "--confirmation-frames", "4")
    assert answer.exit_code == 0
    assert "distance_threshold: 0.35 -> 0.25" in answer.stdout
    assert "events: 1 stay, 1 new, 1 vanish" in answer.stdout
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in answer.stdout.splitlines() if "│" in line
    ]
    assert ["stays", "2026-01-15T12:00:00.300Z", "EMP-1", "EMP-1", "0.200", "-0.1 s"] in rows
    assert ["vanishes", "2026-01-15T12:00:01.000Z", "EMP-2", "EMP-2", "0.300", ""] in rows
    assert ["new", "2026-01-15T12:00:00.900Z", "EMP-2", "(unknown)", "0.300", ""] in rows
    assert ["below_threshold", "0", "5"] in rows
    assert ["unconfirmed", "8", "3"] in rows
    assert ["events", "2", "2"] in rows


def test_a_long_id_is_printed_whole(door, tmp_path):
    """Output to a pipe is not cut to a terminal's width."""
    user = "EMP-" + "0123456789" * 12
    for _ in range(6):
        door.see(door.face(user, 0.2))
    door.recorder.close()
    assert f" {user} " in run_command(tmp_path).stdout


def test_the_command_answers_in_json(door, tmp_path):
    """Standard output has one JSON document and nothing else."""
    for _ in range(6):
        door.see(door.face())
    door.recorder.close()
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b"?\n{")
    answer = run_command(file, "--json", "--min-margin", "0.3", "--cooldown-seconds", "5")
    assert answer.exit_code == 0
    document = json.loads(answer.stdout)
    assert document["events"] == [
        {
            "change": "vanishes",
            "before": {
                "time": "2026-01-15T12:00:00.400Z",
                "run": 1,
                "frame": 4,
                "event_type": "facial_id",
                "track_id": "face_0",
                "user_id": "EMP-1",
                "distance": 0.28,
            },
            "after": None,
        }
    ]
    assert document["refusals"] == {
        "before": {"unconfirmed": 4, "cooldown": 1},
        "after": {"low_margin": 6},
    }
    assert (document["frames"], document["faces"], document["damaged_lines"], document["torn_lines"]) == (
        6,
        6,
        1,
        1,
    )
    assert document["settings"]["before"]["min_margin"] == 0.05
    assert document["settings"]["after"]["min_margin"] == 0.3
    assert document["settings"]["after"]["cooldown_seconds"] == 5
    assert ["line 8 is damaged" in note for note in document["notes"]] == [True]


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b'{"events": []}\n', None])
def test_a_file_that_is_no_recording_ends_with_a_sentence(tmp_path, content):
    """The exit status is 2."""
    file = tmp_path / "video.mp4"
    if content is not None:
        file.write_bytes(content)
    answer = run_command(file)
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    assert str(file) in answer.stderr


def test_the_help_explains_that_quality_is_not_decided_again():
    """A recording has no image."""
    text = " ".join(run_command("--help").stdout.replace("│", " ").split())
    assert "because the recording has no pictures" in text
