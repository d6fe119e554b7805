"""Capture in a thread: the newest frame of a camera, every frame of a file."""

import random
import threading

import cv2
import numpy as np
import pytest

from device.vision.capture.camera import CameraError, open_camera
from device.vision.capture.newest_frame import NewestFrame
from tests.waiting import SECONDS, wait_until

PERIOD = 1 / 30


class Door:
    """A live camera that delivers a picture when the test calls `show`.

    Its clock is the test's. `hang` makes the next read block until `release`, as drivers do.
    """

    fps, corrupt = 30.0, 0

    def __init__(self):
        self.now = 0.0
        self.closed = threading.Event()
        self.reads = 0
        self._shown = 0
        self._read = 0
        self._gone = False
        self._news = threading.Condition()

    def clock(self):
        return self.now

    def show(self, pictures=1):
        """Advance the time by a frame period per picture, and wait until each was read."""
        for _ in range(pictures):
            with self._news:
                self.now += PERIOD
                self._shown += 1
                self._news.notify_all()
                assert self._news.wait_for(lambda: self._read == self._shown, SECONDS)

    def vanish(self):
        with self._news:
            self._gone = True
            self._news.notify_all()

    def read(self):
        with self._news:
            self.reads += 1
            self._news.wait_for(lambda: self._read < self._shown or self._gone)
            if self._gone:
                return None
            self._read += 1
            self._news.notify_all()
            return np.full((4, 6, 3), self._read % 256, np.uint8)

    def close(self):
        self.closed.set()


@pytest.fixture
def door():
    door = Door()
    yield door
    door.vanish()


def capture_of(door, close_seconds=0.0):
    camera = open_camera("0", clock=door.clock, opener=lambda source: door)
    return NewestFrame(camera, close_seconds=close_seconds)


def seen(capture, count):
    wait_until(lambda: capture.counts["seen"] == count, f"{count} frames seen")


def test_the_newest_frame_wins_and_the_others_are_counted(door):
    """Five periods of work on a frame make four frames stale.

    The next frame is the newest.
    """
    with capture_of(door) as capture:
        frames = iter(capture)
        door.show()
        assert next(frames).index == 0
        door.show(5)
        seen(capture, 6)
        newest = next(frames)
        assert newest.index == 5
        assert newest.image[0, 0, 0] == 6
        assert capture.counts == {"seen": 6, "stale": 4, "corrupt": 0, "reopened": 0}


def test_a_frame_is_never_older_than_a_period_when_it_is_taken(door):
    """The rule holds for any duration of work on the frame before."""
    work = random.Random(3)
    ages = []
    with capture_of(door) as capture:
        frames = iter(capture)
        shown = 0
        for _ in range(200):
            shown += (pictures := work.randint(1, 9))
            door.show(pictures)
            seen(capture, shown)
            frame = next(frames)
            ages.append(door.now - frame.captured_at)
    assert max(ages) <= PERIOD
    assert capture.counts["stale"] == shown - 200


def test_a_frame_is_delivered_once(door):
    """A fast consumer waits for the next picture instead of getting one twice."""
    taken = []
    with capture_of(door) as capture:
        reader = threading.Thread(target=lambda: taken.extend(frame.index for frame in capture))
        reader.start()
        for number in range(1, 6):
            door.show()
            wait_until(lambda number=number: len(taken) == number, "the frame is taken")
        capture.stop()
        reader.join(SECONDS)
    assert taken == [0, 1, 2, 3, 4]
    assert capture.counts["stale"] == 0


def test_stopping_ends_the_iteration_while_the_camera_hangs(door):
    """The hanging read is not waited for; its thread closes the camera."""
    ended = threading.Event()
    capture = capture_of(door)

    def work():
        for _ in capture:
            pass
        ended.set()

    with capture:
        reader = threading.Thread(target=work)
        reader.start()
        wait_until(lambda: door.reads, "the read has started")
        capture.stop()
        assert ended.wait(SECONDS)
        reader.join(SECONDS)
    assert not door.closed.is_set()
    door.vanish()
    assert door.closed.wait(SECONDS)


def test_leaving_closes_the_camera(door):
    """The capture releases source and thread in the middle of the iteration."""
    with capture_of(door, close_seconds=SECONDS) as capture:
        frames = iter(capture)
        door.show()
        next(frames)
        door.vanish()
    assert door.closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "capture"]


def test_a_capture_that_is_stopped_before_it_starts_delivers_nothing(door):
    """A program may be stopped while it starts."""
    capture = capture_of(door)
    capture.stop()
    with capture:
        assert list(capture) == []


@pytest.fixture
def video(tmp_path):
    file = tmp_path / "door.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    for grey in range(10):
        writer.write(np.full((48, 64, 3), grey * 20, np.uint8))
    writer.release()
    return file


def test_a_file_loses_no_frame_for_slow_work(video):
    """Every frame comes in order, although the reader is ahead."""
    with NewestFrame(open_camera(str(video), fps=0)) as capture:
        indices = []
        for frame in capture:
            # The reader has the next frame before this frame is processed.
            wait_until(lambda n=frame.index: capture.counts["seen"] >= min(10, n + 2), "the reader is ahead")
            indices.append(frame.index)
    assert indices == list(range(10))
    assert capture.counts["stale"] == 0
    assert capture.state == "ended"


def test_stopping_ends_a_file_without_a_consumer(video):
    """The reader that waits for its frame to be taken ends."""
    with NewestFrame(open_camera(str(video), fps=0)) as capture:
        seen(capture, 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "capture"]
    assert capture.counts["seen"] == 1


def test_an_error_of_the_camera_is_raised_by_the_iteration(tmp_path):
    """The thread does not end silently."""
    (tmp_path / "only.jpg").write_bytes(b"damaged")
    with (
        NewestFrame(open_camera(str(tmp_path), fps=0)) as capture,
        pytest.raises(CameraError, match="no image"),
    ):
        list(capture)


def test_a_bug_in_a_source_is_raised_too(door):
    """Unexpected errors are raised as well as expected ones."""
    door.read = lambda: 1 / 0
    with capture_of(door) as capture, pytest.raises(ZeroDivisionError):
        list(capture)


def test_a_camera_that_is_missing_at_the_start_can_be_stopped():
    """The capture's thread waits for it, and `stop` does not wait for the backoff."""
    tries = []

    def away(source):
        tries.append(source)
        raise CameraError("camera 0 cannot be opened")

    with NewestFrame(open_camera("0", wait_for_live=True, opener=away)) as capture:
        wait_until(lambda: tries, "the first try")
        assert capture.state == "reopening"
        capture.stop()
        assert list(capture) == []
    assert len(tries) == 1


def test_a_hanging_camera_is_reported(door):
    """The heartbeat has `reopening` although the read has not returned."""
    with capture_of(door) as capture:
        door.show()
        wait_until(lambda: door.reads == 2, "the next read has started")
        assert capture.state == "ok"
        door.now += 60
        assert capture.state == "reopening"
        door.show()
        wait_until(lambda: capture.state == "ok", "the camera delivers again")
        door.vanish()


def test_damaged_frames_are_counted(tmp_path):
    """The heartbeat has the camera's own count."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"damaged")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((4, 6, 3), np.uint8))
    with NewestFrame(open_camera(str(tmp_path), fps=0)) as capture:
        assert len(list(capture)) == 1
    assert capture.counts == {"seen": 1, "stale": 0, "corrupt": 2, "reopened": 0}
