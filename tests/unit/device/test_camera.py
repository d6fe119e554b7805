"""Cameras: pacing, looping, reopening, stopping, and errors without secrets."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.vision.camera import CameraError, Frame, open_camera
from device.vision.sources import describe


class Time:
    """A clock that only moves when somebody waits."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def clock(self):
        return self.now

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


class FakeCapture:
    """A live camera that gives `pictures` pictures and is then gone."""

    live, fps, skipped = True, 30.0, 0

    def __init__(self, pictures):
        self.left = pictures

    def read(self):
        self.left -= 1
        return np.zeros((4, 6, 3), np.uint8) if self.left >= 0 else None

    def close(self):
        self.left = 0


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
    time = Time()
    with open_camera(str(video), clock=time.clock, wait=time.wait) as camera:
        frames = list(camera)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert np.diff([frame.captured_at for frame in frames]) == pytest.approx([0.05] * 4)
    assert frames[0].captured_at == 100.0
    assert camera.state == "ended"


def test_a_slow_reader_is_not_sent_a_burst(video: Path):
    """Frames that came late are not made up for: after a pause the next ones are again one period apart."""
    time = Time()
    at = []
    with open_camera(str(video), clock=time.clock, wait=time.wait) as camera:
        for frame in camera:
            at.append(frame.captured_at)
            if frame.index == 1:
                time.now += 10.0
    assert np.diff(at) == pytest.approx([0.05, 10.0, 0.05, 0.05])


def test_no_rate_means_as_fast_as_possible(video: Path):
    """With fps=0 nothing waits."""
    time = Time()
    with open_camera(str(video), fps=0, clock=time.clock, wait=time.wait) as camera:
        assert len(list(camera)) == 5
    assert time.waits == []


def test_a_looped_file_starts_again_with_rising_indices(video: Path):
    """Indices go on over the end of the file, since trackers and validators rely on their order."""
    with open_camera(str(video), loop=True, fps=0) as camera:
        frames = [frame for _, frame in zip(range(12), camera, strict=False)]
    assert [frame.index for frame in frames] == list(range(12))
    assert frames[5].image.mean() == pytest.approx(frames[0].image.mean(), abs=1)


def test_a_damaged_picture_in_a_folder_is_skipped_and_counted(folder: Path):
    """Pictures come by name, the damaged one and other files do not, and it is counted."""
    with open_camera(str(folder), fps=0) as camera:
        greys = [round(float(frame.image.mean())) for frame in camera]
    assert greys == [10, 200]
    assert camera.skipped == 1
    with open_camera(str(folder), fps=0, loop=True) as camera:
        assert len([frame for _, frame in zip(range(5), camera, strict=False)]) == 5
        assert camera.skipped == 2


@pytest.mark.parametrize("loop", [True, False])
def test_a_folder_with_nothing_readable_ends_with_a_sentence(tmp_path: Path, loop: bool):
    """It must neither spin for ever nor look like a folder that has been seen."""
    (tmp_path / "only.jpg").write_bytes(b"damaged")
    with (
        open_camera(str(tmp_path), loop=loop, fps=0) as camera,
        pytest.raises(CameraError, match="no picture"),
    ):
        next(iter(camera))


def test_a_live_camera_that_fails_is_opened_again_with_backoff():
    """Two failed attempts double the wait; frames and indices then go on."""
    time = Time()
    captures = iter([FakeCapture(2), None, None, FakeCapture(2)])

    def opener(source):
        capture = next(captures)
        if capture is None:
            raise CameraError("still away")
        return capture

    camera = open_camera("rtsp://door/1", clock=time.clock, wait=time.wait, opener=opener)
    frames = [frame for _, frame in zip(range(4), camera, strict=False)]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert time.waits == [0.5, 1.0, 2.0]
    assert (camera.reopened, camera.state) == (1, "ok")


def test_stop_from_another_thread_ends_a_wait_at_once(video: Path):
    """A frame an hour: stop() does not wait for it."""
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


def test_stop_ends_the_wait_for_a_lost_camera():
    """A stopped camera does not try to open its source once more."""
    opened = []

    def opener(source):
        opened.append(source)
        return FakeCapture(1)

    camera = open_camera("0", opener=opener)
    frames = iter(camera)
    next(frames)
    camera.stop()
    assert next(frames, None) is None
    assert opened == ["0"]


@pytest.mark.parametrize("source", ["/nowhere/at/all.mp4", "door", ""])
def test_a_source_that_does_not_exist_is_refused_in_a_sentence(source: str):
    """Not an OpenCV traceback."""
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
    """The setting is a mistake, and said so."""
    with pytest.raises(CameraError, match="loop"):
        open_camera("0", loop=True)


def test_a_stream_that_cannot_be_opened_never_shows_its_password(capfd):
    """Neither in the error nor in what OpenCV itself prints."""
    with pytest.raises(CameraError) as caught:
        open_camera("rtsp://admin:s3cret@127.0.0.1:9/stream?token=s3cret")
    printed = capfd.readouterr()
    assert "127.0.0.1:9/stream" in str(caught.value)
    assert "s3cret" not in str(caught.value) + printed.out + printed.err


def test_a_pipeline_is_described_without_its_text():
    """Pipelines carry passwords in their properties."""
    assert "pw" not in describe("rtspsrc location=rtsp://x user-pw=pw ! decodebin ! appsink")


def test_a_video_cut_off_in_the_middle_of_a_frame_ends_there(tmp_path: Path):
    """What can be read is given, then it is the end."""
    file = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    noise = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    for _ in range(10):
        writer.write(noise)
    writer.release()
    os.truncate(file, file.stat().st_size // 2)
    with open_camera(str(file), fps=0) as camera:
        assert 1 <= len(list(camera)) < 10


def test_a_video_without_its_end_is_refused_in_a_sentence(video: Path):
    """An mp4 that was never finished has no index."""
    os.truncate(video, video.stat().st_size // 2)
    with pytest.raises(CameraError, match=r"door\.mp4"):
        open_camera(str(video))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_a_frame_checks_its_shape(image):
    """uint8[h, w, 3] and nothing else."""
    with pytest.raises(ValueError, match="uint8"):
        Frame(image, 0, 0.0)
