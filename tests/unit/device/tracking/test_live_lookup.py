"""The tracker that is asked about a video: when it is told that the pictures were taken."""

from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from device.management.health import Health
from device.recognition.sighting import FrameReport
from device.tracking.live_lookup import LiveTrackerLookup
from tests.device_samples import Clock


class Line:
    """A line that is up at once, at a site that has a head."""

    is_up = True

    def __init__(self):
        self.listeners = []
        self.counts = Counter()

    def attach(self, listener):
        self.listeners.append(listener)

    def start(self):
        for listener in self.listeners:
            listener.connected(0.0)
            listener.receive_message(Decoded(channels.SYNC_HEAD, {}, None))

    def stop(self, timeout):
        pass


class Observations:
    """Has somebody new to tell of in every picture, and an answer at once."""

    def __init__(self):
        self.taken = []

    def connected(self, now):
        pass

    def receive_message(self, decoded):
        pass

    def send_report(self, report, frame_size, captured_at):
        self.taken.append(captured_at)
        return ["face_0"]

    def await_assignments(self, track_ids, seconds):
        return True

    def assignment_of(self, track_id):
        return SimpleNamespace(global_id=42)


def test_a_long_video_that_is_read_fast_is_told_by_a_clock_that_can_be_believed():
    """Three thousand pictures read in no time: told as apart, and never minutes ahead of the time of day."""
    clock, observations = Clock(), Observations()
    lookup = LiveTrackerLookup(
        Line(),
        observations,
        Health(),
        broker="127.0.0.1:1883",
        report_problem=lambda sentence: None,
        utc_now=clock.utc_now,
        sleep=clock.advance,
    )
    ahead = []
    with lookup:
        for index in range(3000):
            lookup.look_up(FrameReport(index, 0.0, 1, (), {}), (640, 480))
            ahead.append(observations.taken[-1] - clock.utc_now())
    apart = [
        later - earlier for earlier, later in zip(observations.taken, observations.taken[1:], strict=False)
    ]
    assert min(apart) >= timedelta(milliseconds=149)
    assert max(ahead) <= timedelta(seconds=61)
