"""The contents, the limits and the failures of a recording of scores."""

import json
import logging
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest

from device.events.decision import NO_MATCH, EventDecision
from device.events.match_limits import MatchLimits
from device.recognition.sighting import FrameReport, Sighting
from device.recordings.format import RecordingError, find_recordings, read_recording
from device.recordings.recorder import ScoreRecorder
from device.vision.detectors.detector import FaceBox
from device.vision.gallery import GalleryMatch
from tests.recorded_door import SETTINGS, RecordedDoor


def files_in(folder):
    return sorted(folder.glob("scores-*.jsonl"))


def test_a_recording_is_read_again(tmp_path):
    """It has a header with the settings and a line for each frame with faces."""
    door = RecordedDoor(tmp_path)
    for _ in range(5):
        door.see(door.face(distance=0.123456789012345678))
    door.see()
    door.see(door.face(quality_reason="blurred"), door.face(None, track="face_1"))
    door.recorder.close()
    [file] = files_in(tmp_path)
    recording = read_recording(file)
    assert (recording.header.run, recording.header.part, recording.header.settings) == (1, 1, SETTINGS)
    frames = list(recording.frames())
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 6]
    assert frames[0].model_dump(mode="json", exclude_none=True) == {
        "index": 0,
        "captured_at": 5000.0,
        "wall_time": "2026-01-15T12:00:00.000Z",
        "gallery_version": 812,
        "faces": [
            {
                "track_id": "face_0",
                "user_id": "EMP-1",
                "distance": 0.123456789012345678,
                "margin": 0.2,
                "box": [10, 20, 60, 70],
                "refusal": "unconfirmed",
            }
        ],
    }
    assert frames[4].faces[0].event_id.startswith("EV1-1768478400400-")
    blurred, unknown = frames[5].faces
    assert (blurred.poor, blurred.refusal, blurred.distance) == ("blurred", "low_quality", None)
    assert (unknown.user_id, unknown.refusal) == (None, "no_match")
    assert (recording.damaged, recording.is_torn) == (0, False)
    assert door.recorder.counts == {"frames": 6}


def test_a_line_has_scores_and_no_vector(tmp_path):
    """The keys of a line are exactly these."""
    recorder = ScoreRecorder(tmp_path, 1 << 20, SETTINGS)
    secret = np.full(512, 0.0441942, np.float32)
    marks = np.zeros((5, 2), np.float32)
    match = GalleryMatch("EMP-1", 0.7, 0.3, 0.2)
    seen = Sighting("face_0", FaceBox(1, 2, 3, 4), marks, None, match, secret, EventDecision(None, NO_MATCH))
    recorder.record(FrameReport(0, 0.0, 1, (seen,), {"embed": 3.0}))
    recorder.close()
    _, line = files_in(tmp_path)[0].read_text().splitlines()
    frame = json.loads(line)
    assert set(frame) == {"index", "captured_at", "wall_time", "gallery_version", "faces"}
    assert set(frame["faces"][0]) == {"track_id", "user_id", "distance", "margin", "box", "refusal"}


def test_only_the_owner_can_read_a_recording(tmp_path):
    """It shows which identity was where at what time."""
    door = RecordedDoor(tmp_path / "deep" / "scores")
    door.see(door.face())
    [file] = files_in(tmp_path / "deep" / "scores")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_all_files_together_stay_within_the_budget(tmp_path):
    """With 16 KiB the newest frames are kept, and the oldest files are deleted.

    Other files stay.
    """
    (tmp_path / "notes.txt").write_text("keep me")
    door = RecordedDoor(tmp_path, 16 * 1024)
    for _ in range(600):
        door.see(door.face())
        door.recorder._file.flush()
        assert sum(file.stat().st_size for file in files_in(tmp_path)) <= 16 * 1024
    door.recorder.close()
    recordings, problems = find_recordings(tmp_path)
    kept = [frame.index for recording in recordings for frame in recording.frames()]
    assert kept == list(range(kept[0], 600))
    assert len(kept) > 30
    assert problems == []
    assert len({recording.header.run for recording in recordings}) == 1
    parts = [recording.header.part for recording in recordings]
    assert parts == list(range(parts[0], parts[0] + len(parts)))
    assert (tmp_path / "notes.txt").exists()


def test_a_restart_starts_another_run_within_the_same_budget(tmp_path):
    """No file is overwritten, and files of earlier runs are deleted for the budget."""
    for _ in range(20):
        door = RecordedDoor(tmp_path, 16 * 1024)
        for _ in range(15):
            door.see(door.face())
        door.recorder.close()
    runs = [recording.header.run for recording in find_recordings(tmp_path)[0]]
    assert len(runs) > 1
    assert runs == list(range(21 - len(runs), 21))
    assert sum(file.stat().st_size for file in files_in(tmp_path)) <= 16 * 1024


def test_a_recorder_without_faces_leaves_no_file(tmp_path):
    """Frames without faces are not recorded."""
    door = RecordedDoor(tmp_path)
    for _ in range(100):
        door.see()
    door.recorder.close()
    assert files_in(tmp_path) == []


def test_lines_are_flushed_every_two_seconds(tmp_path):
    """Frames without faces flush too; a killed program loses two seconds at most."""
    door = RecordedDoor(tmp_path)
    door.see(door.face(), step=1.0)
    door.see(door.face(), step=1.0)
    [file] = files_in(tmp_path)
    assert list(read_recording(file).frames()) == []
    door.see()
    assert [frame.index for frame in read_recording(file).frames()] == [0, 1]


@contextmanager
def full_disk(file_bytes):
    """Limit files of this process to `file_bytes`: writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_ends_the_recording_and_not_recognition(tmp_path, caplog):
    """The error is logged once, and lost frames are counted.

    Earlier lines stay readable.
    """
    door = RecordedDoor(tmp_path)
    caplog.set_level(logging.INFO)
    with full_disk(4096):
        for _ in range(100):
            door.see(door.face(), step=1.0)
        door.recorder.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"score recorder stopped; recognition goes on folder={tmp_path} error='File too large'"
    ]
    counts = door.recorder.counts
    assert counts["frames"] + counts["lost"] == 100
    assert counts["lost"] > 50
    [recording], _ = find_recordings(tmp_path)
    assert len(list(recording.frames())) > 5
    assert (recording.damaged, recording.is_torn) == (0, True)


def test_a_disk_that_fills_up_at_the_end_is_reported(tmp_path, caplog):
    """The buffered frames count as lost."""
    door = RecordedDoor(tmp_path)
    for _ in range(5):
        door.see(door.face())
    with full_disk(100):
        door.recorder.close()
    assert door.recorder.counts["lost"] == 5
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_missing_folder_ends_the_recording(tmp_path, caplog):
    """After the disk was removed the next file cannot be created."""
    folder = tmp_path / "scores"
    door = RecordedDoor(folder, 16 * 1024)
    door.see(door.face())
    folder.rename(tmp_path / "elsewhere")
    for _ in range(50):
        door.see(door.face())
    assert door.recorder.counts["lost"] > 20
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_unusable_folder_is_an_error_at_the_start(tmp_path):
    """Otherwise a camera could record nothing for weeks."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot record scores there"):
        ScoreRecorder(tmp_path / "file", 1 << 20, SETTINGS)
    with pytest.raises(ValueError, match="16384 bytes or more, not 100"):
        ScoreRecorder(tmp_path, 100, SETTINGS)


def test_a_crowd_too_large_for_a_file_is_left_out(tmp_path):
    """The oversized frame does not displace the recorded frames."""
    door = RecordedDoor(tmp_path, 16 * 1024)
    door.see(door.face())
    door.see(*[door.face(None, track=f"face_{n}") for n in range(100)])
    door.see(door.face())
    door.recorder.close()
    [recording], _ = find_recordings(tmp_path)
    assert [frame.index for frame in recording.frames()] == [0, 2]
    assert door.recorder.counts == {"frames": 2, "lost": 1}


def test_a_distance_that_is_no_number_is_written_as_null(tmp_path):
    """Recognition continues."""
    door = RecordedDoor(tmp_path)
    door.see(door.face(distance=float("nan")), door.face(distance=float("inf"), track="face_1"))
    door.recorder.close()
    [frame] = read_recording(files_in(tmp_path)[0]).frames()
    assert [(face.user_id, face.distance, face.refusal) for face in frame.faces] == [
        ("EMP-1", None, "below_threshold")
    ] * 2


def recorded(folder, frames=6):
    door = RecordedDoor(folder)
    for _ in range(frames):
        door.see(door.face())
    door.recorder.close()
    return files_in(folder)[0]


def test_a_torn_last_line_is_no_damage(tmp_path):
    """After a power cut at any byte the complete lines are read."""
    file = recorded(tmp_path)
    content = file.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(content)):
        file.write_bytes(content[:end])
        recording = read_recording(file)
        whole = end == len(content) - 1
        assert len(list(recording.frames())) == (6 if whole else 5)
        assert (recording.damaged, recording.is_torn) == (0, not whole and end > last)


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 300,
        b"\xff\xfe not text",
        b"[]",
        b"{}",
        b'{"index": 1}',
        b'{"index":1,"captured_at":NaN,"wall_time":"2026-01-15T12:00:00.000Z","gallery_version":1,"faces":[]}',
        b"x" * 3_000_000,
    ],
)
def test_a_damaged_line_is_skipped_counted_and_named(tmp_path, damage):
    """The sentence has the line's number and not its content."""
    file = recorded(tmp_path)
    lines = file.read_bytes().splitlines()
    lines[3] = damage
    file.write_bytes(b"\n".join(lines) + b"\n")
    recording = read_recording(file)
    assert [frame.index for frame in recording.frames()] == [0, 1, 3, 4, 5]
    assert recording.damaged >= 1
    assert recording.problems[0].startswith(f"{file}: line 4 is damaged (")
    assert len(recording.problems[0]) < len(str(file)) + 120
    assert not recording.is_torn


def test_only_the_first_problems_are_kept(tmp_path):
    """Reading a million damaged lines needs bounded memory."""
    file = recorded(tmp_path)
    file.write_bytes(file.read_bytes() + b"?\n" * 100)
    recording = read_recording(file)
    assert len(list(recording.frames())) == 6
    assert (recording.damaged, len(recording.problems)) == (100, 20)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"{}\n", b'{"recording": "wfm-scores/2"}\n'])
def test_a_file_that_is_no_recording_is_refused_in_a_sentence(tmp_path, content):
    """The file is empty, a picture, other JSON or a newer format."""
    (tmp_path / "scores-00000001.jsonl").write_bytes(content)
    for path in (tmp_path, tmp_path / "scores-00000001.jsonl"):
        with pytest.raises(RecordingError, match="is not a recording of scores of format wfm-scores/1"):
            find_recordings(path)


def test_a_missing_recording_is_refused(tmp_path):
    """The file does not exist, or the folder has no recordings."""
    with pytest.raises(RecordingError, match="cannot be read"):
        find_recordings(tmp_path / "missing.jsonl")
    with pytest.raises(RecordingError, match="holds no recording"):
        find_recordings(tmp_path)


def test_an_empty_file_of_a_power_cut_is_left_out(tmp_path):
    """The folder's other recordings are read, and a sentence names the empty file."""
    recorded(tmp_path)
    (tmp_path / "scores-00000002.jsonl").write_bytes(b"")
    recordings, problems = find_recordings(tmp_path)
    assert [recording.path.name for recording in recordings] == ["scores-00000001.jsonl"]
    assert len(problems) == 1
    assert "scores-00000002.jsonl" in problems[0]
    door = RecordedDoor(tmp_path)
    door.see(door.face())
    assert (tmp_path / "scores-00000003.jsonl").exists()


def test_other_limits_begin_another_file_of_the_run(tmp_path):
    """Its header has them; the same limits again begin none."""
    door = RecordedDoor(tmp_path)
    for limits in (MatchLimits(0.35, 0.05), MatchLimits(0.2, 0.1), MatchLimits(0.2, 0.1)):
        door.recorder.use_limits(limits)
        door.see(door.face())
    door.recorder.close()
    headers = [read_recording(file).header for file in files_in(tmp_path)]
    assert [(header.run, header.part) for header in headers] == [(1, 1), (1, 2)]
    assert [header.settings.distance_threshold for header in headers] == [0.35, 0.2]
    assert [header.settings.min_margin for header in headers] == [0.05, 0.1]
