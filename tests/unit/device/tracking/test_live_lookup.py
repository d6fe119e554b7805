"""The lookup of tracker ids for a video, and its capture times."""

from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from device.management.health import Health
from device.recognition.sighting import FrameReport
from device.tracking.live_lookup import LiveTrackerLookup
from tests.device_samples import Clock


class ConnectedSession:
    """A session that connects at once, at a site with a head."""

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
    """An observation sender with a new track in every frame and an answer at once."""

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


def test_capture_times_of_a_video_that_is_read_fast_are_plausible():
    """Three thousand frames keep their spacing and are never minutes in the future."""
    clock, observations = Clock(), Observations()
    lookup = LiveTrackerLookup(
        ConnectedSession(),
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
