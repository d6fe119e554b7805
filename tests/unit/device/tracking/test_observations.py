"""The observations that a camera sends to the tracker, and the assignments."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import Assignment, Registered
from device.events.decision import NO_MATCH, EventDecision
from device.recognition.sighting import FrameReport, Sighting
from device.tracking.observations import ObservationSender
from device.tracking.sampling import ObservationSampler
from device.vision.detectors.detector import FaceBox
from tests.device_samples import DIMENSION, NOON, SPACE, Clock, ScriptedLink, vector

GOLDEN = Path(__file__).parents[3] / "contract" / "golden" / "observation.json"
BOX = FaceBox(40, 30, 60, 70)
FRAME = (640, 480)
RUN = "7c41d0"


def face(track="face_0", seed=1, quality=0.5, box=BOX):
    """Return a sighting with the vector of `seed`, without a vector if it is None."""
    found = None if seed is None else np.frombuffer(vector(seed), np.float32)
    quality = None if seed is None else quality
    return Sighting(track, box, None, None, None, found, EventDecision(None, NO_MATCH), quality)


def samples(sampler, now, *faces):
    return [
        (sample.track_id, sample.vector.tobytes(), sample.quality)
        for sample in sampler.select_due(faces, now)
    ]


def test_a_track_is_observed_at_its_first_vector():
    """A face without a vector is no observation and delays none."""
    sampler = ObservationSampler()
    assert samples(sampler, 0.0, face(seed=None)) == []
    assert samples(sampler, 0.1, face(seed=2, quality=0.3)) == [("face_0", vector(2), 0.3)]


def test_a_lasting_track_is_observed_once_a_second():
    """The camera's frame rate does not matter."""
    sampler = ObservationSampler()
    times = [frame / 15 for frame in range(46) if samples(sampler, frame / 15, face())]
    assert times == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_a_better_face_waits_for_the_end_of_the_second():
    """A worse face does not replace it; the box is the current one."""
    sampler = ObservationSampler()
    samples(sampler, 0.0, face(seed=1, quality=0.4))
    assert samples(sampler, 0.3, face(seed=2, quality=0.9)) == []
    assert samples(sampler, 0.6, face(seed=3, quality=0.5)) == []
    moved = FaceBox(90, 35, 61, 71)
    [due] = sampler.select_due([face(seed=None, box=moved)], 1.0)
    assert (due.vector.tobytes(), due.quality, due.box) == (vector(2), 0.9, moved)


def test_no_face_is_observed_twice():
    """A track without a new vector has no new observation."""
    sampler = ObservationSampler()
    samples(sampler, 0.0, face(seed=1))
    assert samples(sampler, 1.5, face(seed=None)) == []
    assert samples(sampler, 1.6, face(seed=4)) == [("face_0", vector(4), 0.5)]


def test_each_track_has_its_own_second():
    """Tracks that start together are observed together."""
    sampler = ObservationSampler()
    assert len(samples(sampler, 0.0, face("face_0"), face("face_1", 2))) == 2
    assert [sample[0] for sample in samples(sampler, 0.5, face("face_0"), face("face_2", 3))] == ["face_2"]
    assert len(samples(sampler, 1.0, face("face_0"), face("face_1", 2), face("face_2", 3))) == 2


def test_lost_tracks_are_forgotten():
    """Memory stays bounded over a thousand tracks."""
    sampler = ObservationSampler()
    for number in range(1000):
        samples(sampler, number * 0.5, face(f"face_{number}"))
    assert len(sampler) <= 5
    sampler.select_due([], 600.0)
    assert len(sampler) == 0


class Camera:
    """An observation sender on a scripted link with a scripted clock."""

    def __init__(self):
        self.clock = Clock()
        self.link = ScriptedLink()
        self.quarantined = False
        self.observations = ObservationSender(
            self.link,
            EmbeddingSpace(SPACE, DIMENSION),
            clock=self.clock,
            run=RUN,
            quarantined=lambda: self.quarantined,
        )
        self.observations.connected(self.clock())

    def see(self, *faces, size=FRAME):
        report = FrameReport(0, self.clock(), 1, faces, {})
        return self.observations.send_report(report, size, self.clock.utc_now())

    def answer(self, track="face_0", global_id=42, user_id=None, run=RUN):
        track_id = f"{run}-{track}"
        assignment = Assignment(track_id=track_id, global_id=global_id, user_id=user_id, similarity=0.8)
        self.observations.receive_message(Decoded(channels.ASSIGNED, {}, assignment))

    @property
    def sent(self):
        return self.link.of(channels.OBSERVATION)

    @property
    def counts(self):
        return {name: count for name, count in self.observations.counts.items() if count}


@pytest.fixture
def camera():
    return Camera()


def test_what_is_sent_is_the_observation_of_the_contract(camera):
    """The fields equal the golden message; the device is in the topic."""
    observed = face(box=FaceBox(412, 128, 160, 190), quality=0.81)
    camera.see(observed, size=(1920, 1080))
    [sent] = [json.loads(observation.to_json()) for observation in camera.sent]
    golden = json.loads(GOLDEN.read_text())["payload"]
    assert set(sent) == set(golden) - {"device_id"}
    assert {name: sent[name] for name in ("track_id", "bbox", "frame_size", "quality")} == {
        **{name: golden[name] for name in ("frame_size", "quality")},
        "track_id": f"{RUN}-{golden['track_id']}",
        "bbox": [412.0, 128.0, 160.0, 190.0],
    }
    assert (camera.sent[0].space, camera.sent[0].vector) == (SPACE, vector(1))
    assert camera.sent[0].captured_at == NOON
    assert camera.counts == {"sent": 1}


def test_observations_of_one_frame_have_one_capture_time(camera):
    """The tracker then knows that two faces are two persons."""
    camera.see(face("face_0", 1), face("face_1", 2, box=FaceBox(300, 30, 60, 70)))
    assert [observation.track_id for observation in camera.sent] == [f"{RUN}-face_0", f"{RUN}-face_1"]
    assert len({observation.captured_at for observation in camera.sent}) == 1


def test_a_box_is_cut_to_its_frame(camera):
    """The box has the visible part of the face."""
    camera.see(face(box=FaceBox(-10, 450, 60, 70)))
    assert camera.sent[0].bbox == [0.0, 450.0, 50.0, 30.0]


@pytest.mark.parametrize(
    "unfit",
    [
        face(box=FaceBox(700, 30, 60, 70)),
        face(box=FaceBox(40, 30, 0, 70)),
        Sighting(
            "face_0",
            BOX,
            None,
            None,
            None,
            np.full(8, np.nan, np.float32),
            EventDecision(None, NO_MATCH),
            0.5,
        ),
        Sighting(
            "face_0", BOX, None, None, None, np.zeros(8, np.float32), EventDecision(None, NO_MATCH), 0.5
        ),
        Sighting("face_0", BOX, None, None, None, np.ones(5, np.float32), EventDecision(None, NO_MATCH), 0.5),
    ],
    ids=["outside", "no width", "NaN", "zero", "another dimension"],
)
def test_an_invalid_observation_is_not_sent(camera, unfit):
    """It is counted as refused, and the other observation is sent."""
    camera.see(unfit, face("face_1", 2))
    assert [observation.track_id for observation in camera.sent] == [f"{RUN}-face_1"]
    assert camera.counts == {"refused": 1, "sent": 1}


def test_without_a_connection_observations_are_dropped(camera):
    """An old observation has no use; it is counted as dropped."""
    camera.link.up = False
    camera.see(face())
    camera.observations.disconnected()
    camera.clock.advance(1.0)
    camera.see(face())
    camera.link.up = True
    camera.observations.connected(camera.clock())
    assert camera.sent == []
    assert camera.counts == {"dropped": 2}
    camera.clock.advance(1.0)
    camera.see(face(seed=3))
    assert [observation.vector for observation in camera.sent] == [vector(3)]


def test_an_observation_that_waited_for_a_busy_link_is_dropped(camera):
    """Applying a large gallery may block the link for seconds."""
    queued = []
    camera.link.submit = queued.append
    camera.see(face())
    camera.clock.advance(2.5)
    [send] = queued
    send()
    assert camera.sent == []
    assert camera.counts == {"dropped": 1}


def test_a_quarantined_device_sends_no_observation(camera):
    """Queued observations are dropped too.

    After the quarantine all tracks are observed again.
    """
    queued = []
    camera.link.submit = queued.append
    camera.see(face())
    camera.quarantined = True
    queued.pop()()
    assert camera.see(face("face_1")) == []
    assert (camera.sent, queued) == ([], [])
    camera.quarantined = False
    camera.clock.advance(0.1)
    assert camera.see(face("face_1")) == ["face_1"]


def test_an_assignment_lasts_as_long_as_its_track(camera):
    """The latest assignment counts, since a better face may change it."""
    camera.see(face())
    assert camera.observations.assignment_of("face_0") is None
    camera.answer(global_id=42)
    camera.answer(global_id=43, user_id="EMP-12345")
    known = camera.observations.assignment_of("face_0")
    assert (known.global_id, known.user_id) == (43, "EMP-12345")
    camera.clock.advance(1.5)
    camera.see(face("face_1"))
    assert camera.observations.assignment_of("face_0") == known
    camera.clock.advance(1.0)
    camera.see(face("face_1"))
    assert camera.observations.assignment_of("face_0") is None


def test_assignments_of_unknown_tracks_are_ignored(camera):
    """The track may be lost; other messages are ignored too."""
    camera.answer("face_7")
    assert camera.observations.assignment_of("face_7") is None
    registered = Registered(request_id="r-1", result="created", user_id="VIS-1")
    camera.observations.receive_message(Decoded(channels.REGISTERED, {}, registered))
    assert camera.observations.assignment_of("face_0") is None


def test_an_assignment_of_an_earlier_run_is_ignored(camera):
    """Each run counts its tracks from face_0, and an assignment may arrive late."""
    tracks = camera.see(face())
    camera.answer("face_0", global_id=7, run="7c41cf")
    camera.answer("face_0", global_id=8, run="")
    assert not camera.observations.await_assignments(tracks, 0.0)
    assert camera.observations.assignment_of("face_0") is None


def test_await_assignments_returns_with_the_last_one(camera):
    """It also returns when the connection is lost or the time is over.

    The result tells the cases apart.
    """
    tracks = camera.see(face("face_0"), face("face_1", 2))
    camera.answer("face_0")
    assert not camera.observations.await_assignments(tracks, 0.0)
    answering = threading.Thread(target=camera.answer, args=["face_1"])
    answering.start()
    assert camera.observations.await_assignments(tracks, 10.0)
    answering.join()
    camera.clock.advance(1.0)
    tracks = camera.see(face("face_0"))
    leaving = threading.Thread(target=camera.observations.disconnected)
    leaving.start()
    assert not camera.observations.await_assignments(tracks, 600.0)
    leaving.join()
