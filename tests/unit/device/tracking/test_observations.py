"""What a camera tells the tracker of, and what it learns from it."""

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
    """A face of which `seed` makes the vector; without a seed it was too poor to be embedded."""
    found = None if seed is None else np.frombuffer(vector(seed), np.float32)
    quality = None if seed is None else quality
    return Sighting(track, box, None, None, None, found, EventDecision(None, NO_MATCH), quality)


def samples(sampler, now, *faces):
    return [
        (sample.track_id, sample.vector.tobytes(), sample.quality)
        for sample in sampler.select_due(faces, now)
    ]


def test_a_track_is_told_of_at_its_first_face_that_has_a_vector():
    """One that is too poor says nothing, and the next need not wait for a second to pass."""
    sampler = ObservationSampler()
    assert samples(sampler, 0.0, face(seed=None)) == []
    assert samples(sampler, 0.1, face(seed=2, quality=0.3)) == [("face_0", vector(2), 0.3)]


def test_a_track_that_lasts_is_told_of_once_a_second():
    """However many frames the camera has."""
    sampler = ObservationSampler()
    times = [frame / 15 for frame in range(46) if samples(sampler, frame / 15, face())]
    assert times == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_a_better_face_waits_for_the_second_to_be_over():
    """And is not replaced by a worse one that comes after it; where the face is, is told as it is then."""
    sampler = ObservationSampler()
    samples(sampler, 0.0, face(seed=1, quality=0.4))
    assert samples(sampler, 0.3, face(seed=2, quality=0.9)) == []
    assert samples(sampler, 0.6, face(seed=3, quality=0.5)) == []
    moved = FaceBox(90, 35, 61, 71)
    [due] = sampler.select_due([face(seed=None, box=moved)], 1.0)
    assert (due.vector.tobytes(), due.quality, due.box) == (vector(2), 0.9, moved)


def test_no_face_is_told_twice():
    """A track that is turned away since then has nothing new to say, until it has."""
    sampler = ObservationSampler()
    samples(sampler, 0.0, face(seed=1))
    assert samples(sampler, 1.5, face(seed=None)) == []
    assert samples(sampler, 1.6, face(seed=4)) == [("face_0", vector(4), 0.5)]


def test_each_track_has_seconds_of_its_own():
    """Two who come together are told together, one who comes later when they come."""
    sampler = ObservationSampler()
    assert len(samples(sampler, 0.0, face("face_0"), face("face_1", 2))) == 2
    assert [one[0] for one in samples(sampler, 0.5, face("face_0"), face("face_2", 3))] == ["face_2"]
    assert len(samples(sampler, 1.0, face("face_0"), face("face_1", 2), face("face_2", 3))) == 2


def test_tracks_that_are_gone_are_forgotten():
    """A day at a busy door takes no more memory than a moment."""
    sampler = ObservationSampler()
    for number in range(1000):
        samples(sampler, number * 0.5, face(f"face_{number}"))
    assert len(sampler) <= 5
    sampler.select_due([], 600.0)
    assert len(sampler) == 0


class Camera:
    """Observations on a scripted link and a clock that is moved by hand."""

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
    """Field by field that of the golden message, but for who it is, which the topic says."""
    observed = face(box=FaceBox(412, 128, 160, 190), quality=0.81)
    camera.see(observed, size=(1920, 1080))
    [sent] = [json.loads(one.to_json()) for one in camera.sent]
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


def test_all_that_is_told_of_one_picture_was_captured_at_once(camera):
    """By that the tracker knows that two faces are two people."""
    camera.see(face("face_0", 1), face("face_1", 2, box=FaceBox(300, 30, 60, 70)))
    assert [one.track_id for one in camera.sent] == [f"{RUN}-face_0", f"{RUN}-face_1"]
    assert len({one.captured_at for one in camera.sent}) == 1


def test_a_box_is_cut_to_its_frame(camera):
    """Only what can be seen is somebody's place."""
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
def test_what_the_contract_refuses_never_leaves(camera, unfit):
    """It is counted, and its neighbour is told all the same."""
    camera.see(unfit, face("face_1", 2))
    assert [one.track_id for one in camera.sent] == [f"{RUN}-face_1"]
    assert camera.counts == {"refused": 1, "sent": 1}


def test_without_a_connection_nothing_waits(camera):
    """Where somebody was then is worthless later: dropped and counted, whoever notices first."""
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
    assert [one.vector for one in camera.sent] == [vector(3)]


def test_what_waited_for_a_busy_link_is_dropped(camera):
    """A gallery of a hundred thousand was applied meanwhile, say."""
    waiting = []
    camera.link.submit = waiting.append
    camera.see(face())
    camera.clock.advance(2.5)
    [send] = waiting
    send()
    assert camera.sent == []
    assert camera.counts == {"dropped": 1}


def test_a_device_in_quarantine_tells_of_nobody(camera):
    """Nor of what waited when the registry's word on the model came; and after it of everybody again."""
    waiting = []
    camera.link.submit = waiting.append
    camera.see(face())
    camera.quarantined = True
    waiting.pop()()
    assert camera.see(face("face_1")) == []
    assert (camera.sent, waiting) == ([], [])
    camera.quarantined = False
    camera.clock.advance(0.1)
    assert camera.see(face("face_1")) == ["face_1"]


def test_an_answer_is_kept_as_long_as_its_track_lives(camera):
    """The last one counts: a better face may tell somebody else apart."""
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


def test_answers_for_tracks_that_nobody_knows_are_ignored(camera):
    """One that has gone; and other messages too."""
    camera.answer("face_7")
    assert camera.observations.assignment_of("face_7") is None
    registered = Registered(request_id="r-1", result="created", user_id="VIS-1")
    camera.observations.receive_message(Decoded(channels.REGISTERED, {}, registered))
    assert camera.observations.assignment_of("face_0") is None


def test_an_answer_of_an_earlier_run_is_not_for_the_track_that_has_its_number(camera):
    """Each run counts from face_0: what the tracker said late of somebody else is not drawn on this face."""
    tracks = camera.see(face())
    camera.answer("face_0", global_id=7, run="7c41cf")
    camera.answer("face_0", global_id=8, run="")
    assert not camera.observations.await_assignments(tracks, 0.0)
    assert camera.observations.assignment_of("face_0") is None


def test_who_waits_for_answers_goes_on_with_the_last_of_them(camera):
    """Or when the connection goes, or the time is up: told apart by what comes back."""
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
