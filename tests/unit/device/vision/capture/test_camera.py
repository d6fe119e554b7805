"""Cameras: pacing, looping, reopening, stopping, and errors without secrets."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.vision.capture.camera import CameraError, Frame, open_camera
from device.vision.capture.sources import describe


class ScriptedTime:
    """A clock that moves only while `wait` is called."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def clock(self):
        return self.now

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


class FakeLive:
    """A live camera that reads an image for each `+` of `reads`, and none for a `-`.

    After the last letter every read fails.
    """

    fps, corrupt = 30.0, 0

    def __init__(self, reads, between=lambda: None):
        self.reads = iter(reads)
        self.between = between
        self.closed = False

    def read(self):
        assert not self.closed
        self.between()
        return np.zeros((4, 6, 3), np.uint8) if next(self.reads, "-") == "+" else None

    def close(self):
        self.closed = True


class Openings:
    """An opener that returns `sources` in turn; None stands for a missing camera."""

    def __init__(self, *sources):
        self.left = list(sources)
        self.given = []

    def __call__(self, source):
        assert all(given.closed for given in self.given), "an open device is busy"
        opened = self.left.pop(0)
        if opened is None:
            raise CameraError("still away")
        self.given.append(opened)
        return opened


class Longest(random.Random):
    """A random source that returns the longest wait of the jitter."""

    def uniform(self, a, b):
        return b


def live_camera(time, *sources, **settings):
    opener = Openings(*sources)
    return open_camera(
        "rtsp://door/1", clock=time.clock, wait=time.wait, opener=opener, jitter=Longest(), **settings
    )


def first(count, camera):
    return [frame for _, frame in zip(range(count), camera, strict=False)]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    file = tmp_path / "door.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 20, (64, 48))
    for grey in range(5):
        writer.write(np.full((48, 64, 3), grey * 40, np.uint8))
    writer.release()
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, grey in (("a.png", 10), ("c.jpg", 200)):
        cv2.imwrite(str(pictures / name), np.full((48, 64, 3), grey, np.uint8))
    (pictures / "b.jpg").write_bytes(b"\xff\xd8 not really a picture")
    (pictures / "notes.txt").write_text("not a picture")
    return pictures


def test_a_file_is_paced_at_its_own_rate(video: Path):
    """Five frames at 20 a second are 50 ms apart, and the first comes at once."""
    time = ScriptedTime()
    with open_camera(str(video), clock=time.clock, wait=time.wait) as camera:
        frames = list(camera)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert np.diff([frame.captured_at for frame in frames]) == pytest.approx([0.05] * 4)
    assert frames[0].captured_at == 100.0
    assert camera.state == "ended"


def test_late_frames_are_not_delivered_in_a_burst(video: Path):
    """After a pause the next frames are again one period apart."""
    time = ScriptedTime()
    at = []
    with open_camera(str(video), clock=time.clock, wait=time.wait) as camera:
        for frame in camera:
            at.append(frame.captured_at)
            if frame.index == 1:
                time.now += 10.0
    assert np.diff(at) == pytest.approx([0.05, 10.0, 0.05, 0.05])


def test_no_rate_means_as_fast_as_possible(video: Path):
    """With `fps=0` no read waits."""
    time = ScriptedTime()
    with open_camera(str(video), fps=0, clock=time.clock, wait=time.wait) as camera:
        assert len(list(camera)) == 5
    assert time.waits == []


def test_a_looped_file_starts_again_with_rising_indices(video: Path):
    """Trackers and validators rely on rising indices."""
    with open_camera(str(video), loop=True, fps=0) as camera:
        frames = [frame for _, frame in zip(range(12), camera, strict=False)]
    assert [frame.index for frame in frames] == list(range(12))
    assert frames[5].image.mean() == pytest.approx(frames[0].image.mean(), abs=1)


def test_a_damaged_picture_in_a_folder_is_skipped_and_counted(folder: Path):
    """Pictures come by name, and files that are no pictures are ignored."""
    with open_camera(str(folder), fps=0) as camera:
        greys = [round(float(frame.image.mean())) for frame in camera]
    assert greys == [10, 200]
    assert camera.corrupt == 1
    with open_camera(str(folder), fps=0, loop=True) as camera:
        assert len([frame for _, frame in zip(range(5), camera, strict=False)]) == 5
        assert camera.corrupt == 2


@pytest.mark.parametrize("loop", [True, False])
def test_a_folder_without_readable_pictures_is_an_error(tmp_path: Path, loop: bool):
    """The camera neither loops for ever nor reports the end of the folder."""
    (tmp_path / "only.jpg").write_bytes(b"damaged")
    with (
        open_camera(str(tmp_path), loop=loop, fps=0) as camera,
        pytest.raises(CameraError, match="no image"),
    ):
        next(iter(camera))


def test_a_live_camera_that_fails_is_opened_again_with_backoff():
    """It is closed first; failed attempts double the wait; frames and indices go on."""
    time = ScriptedTime()
    camera = live_camera(time, FakeLive("++"), None, None, FakeLive("++"))
    frames = first(4, camera)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [wait for wait in time.waits if wait >= 0.5] == [1.0, 2.0, 4.0]
    assert (camera.reopened, camera.state) == (1, "ok")


def test_waits_are_spread_and_never_longer_than_half_a_minute():
    """Cameras behind one switch that failed together reopen at different times.

    A wait stays below half a minute after an hour, too.
    """
    time = ScriptedTime()
    away = [None] * 12
    camera = open_camera(
        "0",
        wait_for_live=True,
        clock=time.clock,
        wait=time.wait,
        opener=Openings(*away, FakeLive("+")),
        jitter=random.Random(1),
    )
    first(1, camera)
    assert len(set(time.waits)) == len(away)
    assert all(0.5 <= wait <= 30 for wait in time.waits)
    assert max(time.waits) > 10


def test_a_camera_without_pictures_is_reopened_with_growing_waits():
    """Opening is no success: the backoff restarts only with a picture."""
    time = ScriptedTime()
    camera = live_camera(time, FakeLive("+"), FakeLive(""), FakeLive(""), FakeLive("+"))
    first(2, camera)
    assert [wait for wait in time.waits if wait >= 0.5] == [1.0, 2.0, 4.0]
    assert camera.reopened == 1


def test_a_damaged_picture_of_a_live_camera_is_skipped_and_counted():
    """A failed read does not mean that the camera is gone."""
    time = ScriptedTime()
    camera = live_camera(time, FakeLive("+--+-+"))
    assert len(first(3, camera)) == 3
    assert (camera.corrupt, camera.reopened, camera.state) == (3, 0, "ok")


def test_a_live_camera_that_is_missing_at_the_start_is_waited_for(caplog):
    """The iteration opens it; until then it is `reopening`, with one warning."""
    time = ScriptedTime()
    camera = live_camera(time, None, None, None, FakeLive("++"), wait_for_live=True)
    assert camera.state == "reopening"
    assert [frame.index for frame in first(2, camera)] == [0, 1]
    assert time.waits == [1.0, 2.0, 4.0]
    assert (camera.state, camera.reopened) == ("ok", 0)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_without_waiting_a_missing_live_camera_is_an_error():
    """A check of the camera gets the error at once."""
    with pytest.raises(CameraError, match="still away"):
        live_camera(ScriptedTime(), None)


def test_waiting_for_a_live_camera_does_not_hide_a_missing_file():
    """A file that does not exist is not waited for."""
    with pytest.raises(CameraError, match="neither"):
        open_camera("/nowhere/at/all.mp4", wait_for_live=True)


def test_a_live_camera_that_does_not_answer_is_reported_as_reopening():
    """A hanging read raises nothing, so the state depends on its duration."""
    time = ScriptedTime()
    states = []

    def hang():
        states.append(camera.state)
        time.now += 6.0
        states.append(camera.state)

    camera = live_camera(time, FakeLive("+", between=hang))
    first(1, camera)
    assert states == ["ok", "reopening"]
    assert camera.state == "ok"


def test_a_read_that_fails_after_a_long_silence_is_not_repeated():
    """A driver's own timeout has waited long enough."""
    time = ScriptedTime()
    reads = []

    def slow():
        reads.append(time.now)
        time.now += 3.0

    camera = live_camera(time, FakeLive("", between=slow), FakeLive("+"))
    first(1, camera)
    assert len(reads) == 1


def test_a_live_camera_is_thinned_to_the_requested_rate_without_delay():
    """30 pictures a second at `fps=10`: every third, as old as its read."""
    time = ScriptedTime()
    camera = live_camera(time, FakeLive("+" * 31, between=lambda: time.wait(1 / 30)), fps=10)
    frames = first(10, camera)
    assert np.diff([frame.captured_at for frame in frames]) == pytest.approx([0.1] * 9)
    assert set(time.waits) == {1 / 30}


def test_thinning_to_the_cameras_own_rate_drops_no_picture():
    """Pictures with a few milliseconds of jitter are all delivered."""
    time = ScriptedTime()
    steps = iter([0.030, 0.037, 0.033, 0.029, 0.038, 0.033] * 10)
    camera = live_camera(time, FakeLive("+" * 60, between=lambda: time.wait(next(steps))), fps=30)
    first(50, camera)
    assert len(time.waits) == 50


def test_stop_from_another_thread_ends_a_wait_at_once(video: Path):
    """The camera waits an hour per frame, and `stop` ends the wait."""
    camera = open_camera(str(video), fps=1 / 3600)
    seen = []
    first = threading.Event()

    def read():
        for frame in camera:
            seen.append(frame)
            first.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(5)
    camera.stop()
    reader.join(5)
    assert not reader.is_alive()
    assert len(seen) == 1


def test_stop_ends_the_wait_for_a_missing_camera():
    """A stopped camera does not open its source again."""
    opened = []

    def opener(source):
        opened.append(source)
        return FakeLive("+")

    camera = open_camera("0", opener=opener)
    frames = iter(camera)
    next(frames)
    camera.stop()
    assert next(frames, None) is None
    assert opened == ["0"]


@pytest.mark.parametrize("source", ["/nowhere/at/all.mp4", "door", ""])
def test_a_source_that_does_not_exist_is_refused(source: str):
    """The error is a sentence instead of OpenCV's traceback."""
    with pytest.raises(CameraError):
        open_camera(source)


def test_an_empty_folder_and_a_file_that_is_no_video_are_refused(tmp_path: Path):
    """Both are named in the error."""
    with pytest.raises(CameraError, match="no pictures"):
        open_camera(str(tmp_path))
    file = tmp_path / "text.mp4"
    file.write_text("not a video")
    with pytest.raises(CameraError, match=r"text\.mp4"):
        open_camera(str(file))


def test_a_live_source_cannot_be_looped():
    """The error names the setting."""
    with pytest.raises(CameraError, match="loop"):
        open_camera("0", loop=True)


def test_a_stream_error_does_not_show_the_password(capfd):
    """Neither the error nor OpenCV's own output has it."""
    with pytest.raises(CameraError) as caught:
        open_camera("rtsp://admin:s3cret@127.0.0.1:9/stream?token=s3cret")
    printed = capfd.readouterr()
    assert "127.0.0.1:9/stream" in str(caught.value)
    assert "s3cret" not in str(caught.value) + printed.out + printed.err


def test_a_pipeline_is_described_without_its_text():
    """Properties of a pipeline may contain passwords."""
    assert "pw" not in describe("rtspsrc location=rtsp://x user-pw=pw ! decodebin ! appsink")


def make_video(file: Path, codec: str, frames: int = 20) -> bytearray:
    """Write a video of grey pictures 10, 20, ... with noise; return its bytes."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), 20, (320, 240))
    random_pixels = np.random.default_rng(1)
    for number in range(1, frames + 1):
        image = np.full((240, 320, 3), number * 10, np.uint8)
        image[100:200, 100:200] = random_pixels.integers(0, 255, (100, 100, 3))
        writer.write(image)
    writer.release()
    return bytearray(file.read_bytes())


def read_all(file: Path) -> tuple[list[int], int]:
    """Return the frames by their grey, and the count of damaged frames."""
    with open_camera(str(file), fps=0) as camera:
        return [round(float(frame.image[:50].mean()) / 10) for frame in camera], camera.corrupt


@pytest.mark.parametrize(("codec", "suffix"), [("mp4v", "mp4"), ("MJPG", "avi"), ("MJPG", "mkv")])
@pytest.mark.parametrize("damage", ["zeros", "noise"])
def test_a_damaged_stretch_of_a_video_is_skipped_and_counted(tmp_path: Path, codec, suffix, damage):
    """A fifth of the bytes in the middle is overwritten.

    The other frames come, and the missing ones are counted.
    """
    file = tmp_path / f"damaged.{suffix}"
    data = make_video(file, codec)
    begin, length = int(len(data) * 0.4), len(data) // 5
    noise = np.random.default_rng(2).integers(0, 255, length, np.uint8).tobytes()
    data[begin : begin + length] = bytes(length) if damage == "zeros" else noise
    file.write_bytes(data)
    came, corrupt = read_all(file)
    assert came[:5] == [1, 2, 3, 4, 5]
    assert came[-5:] == [16, 17, 18, 19, 20]
    assert 15 <= len(came) < 20
    assert corrupt == 20 - len(came)


def jpeg_chunks(data: bytearray) -> list[slice]:
    """Return where the pictures of an MJPG avi are."""
    found, at = [], data.find(b"00dc", data.find(b"movi"))
    while at >= 0 and len(found) < 20:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        found.append(slice(at + 8, at + 8 + length))
        at = data.find(b"00dc", at + 8 + length)
    return found


@pytest.mark.parametrize("gone", [range(1), range(5, 8), range(19), range(17, 20)])
def test_damaged_frames_anywhere_are_skipped_and_counted_one_by_one(tmp_path: Path, gone):
    """The damage is at the start, in the middle, nearly everywhere, and at the end."""
    file = tmp_path / "frames.avi"
    data = make_video(file, "MJPG")
    for number, chunk in enumerate(jpeg_chunks(data)):
        if number in gone:
            data[chunk] = bytes(chunk.stop - chunk.start)
    file.write_bytes(data)
    came, corrupt = read_all(file)
    # JPEG may round a frame's grey to its neighbour's, so only the number of frames is exact.
    assert len(came) == 20 - len(gone)
    assert corrupt == len(gone)


def test_a_looped_damaged_video_continues(tmp_path: Path):
    """Each round counts its damage, without an end or an error."""
    file = tmp_path / "loop.avi"
    data = make_video(file, "MJPG")
    for chunk in jpeg_chunks(data)[5:8]:
        data[chunk] = bytes(chunk.stop - chunk.start)
    file.write_bytes(data)
    with open_camera(str(file), fps=0, loop=True) as camera:
        assert len(first(17 * 3, camera)) == 17 * 3
        assert camera.corrupt == 9


def test_a_video_without_a_readable_frame_is_an_error(tmp_path: Path):
    """It opens, but no frame can be read."""
    file = tmp_path / "none.avi"
    data = make_video(file, "MJPG")
    for chunk in jpeg_chunks(data):
        data[chunk] = bytes(chunk.stop - chunk.start)
    file.write_bytes(data)
    with pytest.raises(CameraError, match=r"none\.avi has no image"):
        read_all(file)


@pytest.mark.parametrize(("codec", "suffix"), [("MJPG", "avi"), ("XVID", "avi"), ("MJPG", "mkv")])
def test_a_truncated_video_ends_at_the_damage(tmp_path: Path, codec, suffix):
    """Readable frames come; those that the header promised are counted."""
    file = tmp_path / f"cut.{suffix}"
    data = make_video(file, codec)
    file.write_bytes(data[: len(data) // 2])
    came, corrupt = read_all(file)
    assert 8 <= len(came) <= 11
    assert came == sorted(came)
    assert corrupt == 20 - len(came)


@pytest.mark.parametrize(("codec", "suffix"), [("mp4v", "mp4"), ("MJPG", "avi"), ("MJPG", "mkv")])
@pytest.mark.parametrize("keep", [0, 1, 40, 200, 2000, 5000])
def test_a_video_truncated_anywhere_ends_or_is_refused(tmp_path: Path, codec, suffix, keep):
    """No length crashes or loops for ever."""
    file = tmp_path / f"stump.{suffix}"
    data = make_video(file, codec)
    file.write_bytes(data[:keep])
    came, refusal = [], f"stump.{suffix} in a sentence"
    try:
        came, _ = read_all(file)
    except CameraError as error:
        refusal = str(error)
    assert len(came) <= 3
    assert f"stump.{suffix}" in refusal
    assert "\n" not in refusal


def test_a_damaged_header_gets_a_plausible_rate(tmp_path: Path):
    """An avi without its index still plays."""
    file = tmp_path / "header.avi"
    data = make_video(file, "MJPG")
    data[:3000] = bytes(3000)
    file.write_bytes(data)
    with open_camera(str(file), fps=0) as camera:
        assert len(list(camera)) >= 18
        assert camera.corrupt < 3


def test_damage_prints_nothing(tmp_path: Path):
    """FFmpeg would log a line per damaged block."""
    file = tmp_path / "loud.mp4"
    data = make_video(file, "mp4v")
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    file.write_bytes(data)
    # A separate program: OpenCV reads the variable once, and the writer above has read it.
    program = (
        "import sys; from device.vision.capture.camera import open_camera as o; list(o(sys.argv[1], fps=0))"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, check=True)
    assert ran.stderr == b""


def test_a_video_without_its_index_is_refused(video: Path):
    """An mp4 that was never finished has no index."""
    os.truncate(video, video.stat().st_size // 2)
    with pytest.raises(CameraError, match=r"door\.mp4"):
        open_camera(str(video))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_a_frame_checks_its_shape(image):
    """A frame is uint8[h, w, 3]."""
    with pytest.raises(ValueError, match="uint8"):
        Frame(image, 0, 0.0)


def test_a_pipeline_of_grey_pictures_is_refused():
    """The sentence names the format to configure."""

    class Grey(FakeLive):
        def read(self):
            return np.zeros((4, 6), np.uint8)

    camera = open_camera("videotestsrc ! appsink", opener=lambda _: Grey(""))
    with camera, pytest.raises(CameraError, match=r"uint8\[4, 6\]: have the camera or its pipeline give BGR"):
        next(iter(camera))
