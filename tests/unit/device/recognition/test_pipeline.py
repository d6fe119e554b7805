"""The whole pipeline from video to events, on the sample videos of the demo."""

import threading
from types import MappingProxyType

import numpy as np
import pytest

from broker_bridge.common.settings import load_settings
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace, to_array
from deploy.local.sample_video import FPS, IDENTITIES, UNKNOWN, enrollment_photo, make_sample
from device.events.event_validator import EventValidator
from device.recognition.assembly import build_recognition
from device.recognition.pipeline import RecognitionPipeline
from device.settings import DeviceSection, DeviceSettings, QualitySettings, Thresholds
from device.vision.capture.camera import Frame, open_camera
from device.vision.detectors.detector import Detections
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.inference.session import ModelError
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.quality import QualityGate
from device.vision.tracker import FaceTracker

NAMES = {row: user_id for user_id, row in IDENTITIES.items()}


@pytest.fixture(scope="module")
def embedder():
    return load_embedder()


@pytest.fixture(scope="module")
def gallery(embedder):
    """Return the demo's identities, enrolled by photo."""
    photos = PhotoEmbedder(load_detector(), embedder)
    vectors = [to_array(photos.embed_photo(enrollment_photo(row)).vector) for row in IDENTITIES.values()]
    return Gallery(embedder.space, list(IDENTITIES), np.stack(vectors), version=6)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("videos"))


class FrameClock:
    """A clock that stands at the time of the frame."""

    now = 0.0

    def __call__(self):
        return self.now


def pipeline_for(embedder, galleries, clock, parts=MappingProxyType({}), **settings):
    validator = EventValidator(
        "cam-001",
        distance_threshold=DEFAULT_FACE_SPACE.limits.distance,
        min_margin=DEFAULT_FACE_SPACE.limits.margin,
        clock=clock,
        **settings,
    )
    gate = QualityGate(QualitySettings())
    pipeline = RecognitionPipeline(
        load_detector(), FaceTracker(), embedder, galleries, validator, quality=gate, **parts
    )
    return pipeline, validator


@pytest.mark.parametrize("camera", [0, 1])
def test_each_identity_has_one_event_and_the_unknown_face_one(embedder, gallery, samples, camera):
    """Each event comes while its face is in the picture, with that face's box.

    Events are in order.
    """
    sample, clock = samples[camera], FrameClock()
    pipeline, validator = pipeline_for(embedder, GalleryHolder(gallery), clock, unknown_events=True)
    events = {}
    with open_camera(str(sample.path), fps=0, clock=clock) as frames:
        for frame in frames:
            clock.now = frame.index / FPS
            for event, box in pipeline.process(frame).events:
                assert event.user_id not in events
                events[event.user_id] = (frame.index, box, event)
    assert set(events) == {NAMES.get(seen.face) for seen in sample.appearances}
    for seen in sample.appearances:
        index, box, event = events[NAMES.get(seen.face)]
        assert seen.first_frame + 4 <= index <= seen.first_frame + 16
        assert abs(box.x + box.width / 2 - (seen.left + 80)) < 50
        assert event.metadata["gallery_version"] == 6
        if seen.face == UNKNOWN:
            assert event.event_type == "unknown"
        else:
            assert event.metadata["margin"] > DEFAULT_FACE_SPACE.limits.margin
    assert pipeline.stats.counts["frames"] == sample.frames
    assert pipeline.stats.counts["events"] == len(sample.appearances)
    assert pipeline.stats.fps == pytest.approx(FPS, rel=0.1)
    assert validator.refusals["below_threshold"] >= 10


def test_a_deleted_identity_is_not_recognised_from_the_next_frame_on(embedder, gallery, samples):
    """The gallery is swapped while the camera runs; the other identities stay."""
    sample, clock = samples[0], FrameClock()
    gone, stays = (NAMES[seen.face] for seen in sample.appearances[:2])
    kept = [user_id for user_id in IDENTITIES if user_id != gone]
    rows = [to_array_of(embedder, IDENTITIES[user_id]) for user_id in kept]
    galleries = GalleryHolder(gallery)
    pipeline, _ = pipeline_for(embedder, galleries, clock)
    recognised = []
    with open_camera(str(sample.path), fps=0, clock=clock) as frames:
        for frame in frames:
            clock.now = frame.index / FPS
            if frame.index == sample.appearances[0].first_frame + 2:
                galleries.swap(Gallery(embedder.space, kept, np.stack(rows), version=7))
            recognised += [event.user_id for event, _ in pipeline.process(frame).events]
            if frame.index > sample.appearances[1].last_frame:
                break
    assert recognised == [stays]


def to_array_of(embedder, row):
    return to_array(PhotoEmbedder(load_detector(), embedder).embed_photo(enrollment_photo(row)).vector)


class AnyQuality:
    """A quality check that accepts every face."""

    def check_quality(self, faces, found):
        return [None] * len(faces)


ANY_QUALITY = AnyQuality()


class OneFace:
    """A detector of one fixed face, and an embedder of one fixed vector."""

    space = EmbeddingSpace("face:test", 2)

    def detect(self, image):
        return Detections(np.array([[10, 10, 50, 50]], np.float32), np.ones(1, np.float32))

    def embed(self, faces):
        return np.tile(np.array([[1, 0]], np.float32), (len(faces), 1))


def events_of_two(angle, min_margin):
    """Return the events of ten frames of two identities, and the refusals.

    The first identity is at the face, the second `angle` radians from it.
    """
    vectors = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
    holder = GalleryHolder(Gallery(OneFace.space, ["EMP-1", "EMP-2"], vectors))
    validator = EventValidator("cam-001", min_margin=min_margin)
    pipeline = RecognitionPipeline(
        OneFace(), FaceTracker(), OneFace(), holder, validator, quality=ANY_QUALITY
    )
    frames = [Frame(np.zeros((80, 80, 3), np.uint8), index, index / 15) for index in range(10)]
    return [event for frame in frames for event, _ in pipeline.process(frame).events], validator.refusals


def test_a_match_without_a_clear_lead_is_no_match():
    """Two identities at a similar distance make no event."""
    events, counts = events_of_two(angle=0.2, min_margin=0.05)
    assert (events, counts["low_margin"]) == ([], 10)
    events, counts = events_of_two(angle=0.6, min_margin=0.05)
    assert [event.user_id for event in events] == ["EMP-1"]
    assert counts["low_margin"] == 0


def one_face(count=10, *, galleries=None, quality=ANY_QUALITY, validator=None, **parts):
    """Return the reports of `count` frames of one identity's face, and the pipeline."""
    vectors = np.array([[1, 0]], np.float32)
    galleries = galleries or GalleryHolder(Gallery(OneFace.space, ["EMP-1"], vectors, version=3))
    validator = validator or EventValidator("cam-001")
    pipeline = RecognitionPipeline(
        OneFace(), FaceTracker(), OneFace(), galleries, validator, quality=quality, **parts
    )
    frames = [Frame(np.zeros((80, 80, 3), np.uint8), index, index / 15) for index in range(count)]
    return [pipeline.process(frame) for frame in frames], pipeline


def test_a_frame_report_has_match_votes_and_times():
    """It has identity, distance, votes and the milliseconds of each stage."""
    reports, pipeline = one_face()
    seen = reports[3].sightings[0]
    assert (seen.track_id, seen.match.user_id, seen.match.distance) == ("face_0", "EMP-1", pytest.approx(0))
    assert (seen.decision.reason, seen.decision.votes) == ("unconfirmed", 4)
    assert [position for position, report in enumerate(reports) if report.events] == [4]
    assert reports[4].gallery_version == 3
    assert {"detect", "track", "align", "quality", "embed", "match", "validate"} <= set(
        reports[0].milliseconds
    )
    assert pipeline.stats.inference_ms >= 0


def test_a_face_of_low_quality_is_neither_embedded_nor_compared():
    """It costs no inference, and its quality reason is counted."""

    class EverySecondIsBlurred(AnyQuality):
        frames = 0

        def check_quality(self, faces, found):
            self.frames += 1
            return ["blurred" if self.frames % 2 else None] * len(faces)

    reports, pipeline = one_face(quality=EverySecondIsBlurred())
    blurred = [report.sightings[0] for report in reports[::2]]
    assert all(seen.vector is None and seen.match is None for seen in blurred)
    assert {seen.decision.reason for seen in blurred} == {"low_quality"}
    assert [position for position, report in enumerate(reports) if report.events] == [9]
    assert pipeline.stats.quality_reasons == {"blurred": 5}


@pytest.mark.parametrize("reason", ["quarantined", "stale_gallery"])
def test_a_suppressed_device_makes_no_event(reason):
    """A quarantined model and a stale gallery make no unknown events either."""
    validator = EventValidator("cam-001", unknown_events=True)
    reports, _ = one_face(suppressed_reason=lambda: reason, validator=validator)
    assert [report.events for report in reports] == [()] * 10
    assert validator.refusals == {reason: 10}


def test_a_stale_gallery_keeps_the_vector_and_a_quarantine_does_not():
    """The tracker compares with other faces, but never with a quarantined model's."""
    stale, _ = one_face(1, suppressed_reason=lambda: "stale_gallery")
    [seen] = stale[0].sightings
    assert (seen.match, seen.vector.tolist(), seen.decision.reason) == (None, [1, 0], "stale_gallery")
    assert 0 <= seen.quality <= 1
    quarantined, _ = one_face(1, suppressed_reason=lambda: "quarantined")
    [seen] = quarantined[0].sightings
    assert (seen.vector, seen.quality) == (None, None)


class FailingParts(OneFace):
    """Detector, embedder and emotions in one; `mode` selects the part that fails."""

    mode = ""
    failure = None

    def detect(self, image):
        if self.mode == "no face":
            return Detections.empty()
        if self.mode == "detector fails":
            raise ModelError("det.onnx: the network failed")
        return super().detect(image)

    def embed(self, faces):
        if self.mode == "embedder fails":
            raise ModelError("w600k.onnx: the network failed")
        # FaceEmbedder replaces NaN by zeros.
        return super().embed(faces) * np.float32(self.mode != "NaN")

    def read_emotions(self, faces, sightings, frame_id):
        if sightings:
            self.failure = "emotion.onnx: the network failed" if self.mode == "emotions fail" else None
        return []


def events_by_mode(*each, validator=None, **parts):
    """Return the events of a frame in each mode, and the failing parts after it."""
    camera = FailingParts()
    holder = GalleryHolder(Gallery(camera.space, ["EMP-1"], np.array([[1, 0]], np.float32)))
    pipeline = RecognitionPipeline(
        camera,
        FaceTracker(),
        camera,
        holder,
        validator or EventValidator("cam-001", confirmation_frames=2),
        quality=ANY_QUALITY,
        emotions=camera,
        **parts,
    )
    seen = []
    for index, camera.mode in enumerate(each):
        try:
            events = pipeline.process(Frame(np.zeros((80, 80, 3), np.uint8), index, index / 15)).events
        except ModelError:
            events = None
        seen.append((events, dict(pipeline.failing)))
    return seen


def test_a_face_without_a_vector_is_not_unknown():
    """An embedder that returns NaN makes no unknown event and no visitor.

    The failure is reported.
    """
    validator = EventValidator("cam-001", confirmation_frames=2, unknown_events=True)
    seen = events_by_mode(*["NaN"] * 6, validator=validator)
    assert [events for events, _ in seen] == [()] * 6
    assert "face:test returns no vector for a face" in seen[-1][1]["embed"]
    assert validator.refusals == {"no_vector": 6}


@pytest.mark.parametrize(
    ("network", "mode"),
    [
        ("detect", "detector fails"),
        ("embed", "embedder fails"),
        ("emotion", "emotions fail"),
        ("embed", "NaN"),
    ],
)
def test_a_failed_network_is_failing_until_it_works_again(network, mode):
    """A frame without a face does not use the embedder; every frame uses the detector."""
    seen = events_by_mode(mode, "", mode, "no face", "")
    failing = [network in failing for _, failing in seen]
    assert failing == [True, False, True, network != "detect", False]


def test_a_failing_emotion_network_does_not_affect_recognition():
    """The identity is reported once, without an emotion."""
    seen = events_by_mode(*["emotions fail"] * 4)
    assert [len(events) for events, _ in seen] == [0, 1, 0, 0]


def test_after_a_swap_no_event_comes_from_the_old_gallery():
    """An event is sent while its gallery is in use, and the swap waits for it."""
    galleries = GalleryHolder(Gallery(OneFace.space, ["EMP-1"], np.array([[1, 0]], np.float32)))
    order, sending, swapped = [], threading.Event(), threading.Event()

    def swap():
        sending.wait(10)
        galleries.swap(Gallery.empty(OneFace.space))
        order.append("swapped")
        swapped.set()

    def on_event(event, box, frame):
        sending.set()
        # The swap must not finish before the event is sent.
        assert not swapped.wait(0.2)
        order.append("sent")

    other = threading.Thread(target=swap)
    other.start()
    one_face(5, galleries=galleries, on_event=on_event)
    other.join(10)
    assert order == ["sent", "swapped"]


@pytest.mark.parametrize(("distance", "margin"), [(0.35, 0.0), (0.25, 0.05), (0.8, 0.1), (2.0, 0.5)])
def test_matches_are_exact_up_to_the_thresholds(distance, margin):
    """The margin needs the exact runner-up too."""
    floors = []

    class Watched(Gallery):
        def match(self, queries, floor):
            floors.append(floor)
            return super().match(queries, floor)

    limits = Thresholds(distance=distance, margin=margin)
    device = DeviceSection(id="cam-001", site="lobby", thresholds={DEFAULT_FACE_SPACE.space: limits})
    recognition = build_recognition(device)
    recognition.galleries.swap(Watched.empty(recognition.space))
    pipeline = recognition.build_pipeline(suppressed_reason=lambda: None, on_event=lambda *_: None)
    pipeline.process(Frame(np.full((100, 100, 3), 90, np.uint8), 0, 0.0))
    [floor] = floors
    assert -1 <= floor <= max(-1, 1 - distance - margin - 0.1)


@pytest.mark.parametrize(
    ("limits", "recognised"),
    [
        (None, True),
        ('{"face:resnet29-512": {"distance": 0.0001}}', False),
        ('{"face:resnet29-512": {"distance": 0.25, "margin": 1.5}}', False),
    ],
)
def test_the_configured_thresholds_decide_what_is_recognised(gallery, samples, limits, recognised):
    """A small distance or a large margin leaves no match."""
    environ = {"WFM_DEVICE__ID": "cam-001", "WFM_DEVICE__SITE": "lobby", "WFM_DEVICE__DETECTOR": "cascade"}
    if limits:
        environ["WFM_DEVICE__THRESHOLDS"] = limits
    recognition = build_recognition(load_settings(DeviceSettings, None, environ).device)
    recognition.galleries.swap(gallery)
    events = []
    pipeline = recognition.build_pipeline(
        suppressed_reason=lambda: None, on_event=lambda event, *_: events.append(event)
    )
    known = next(seen for seen in samples[0].appearances if seen.face in NAMES)
    with open_camera(str(samples[0].path), fps=0, clock=recognition.clock) as frames:
        for frame in frames:
            if frame.index > known.first_frame + 16:
                break
            if frame.index >= known.first_frame:
                pipeline.process(frame)
    assert (NAMES[known.face] in {event.user_id for event in events}) == recognised


def test_embedder_and_gallery_must_be_of_one_space(embedder):
    """A device never compares vectors of two models."""
    other = GalleryHolder(Gallery.empty(EmbeddingSpace("face:other", 512)))
    with pytest.raises(ValueError, match="face:other"):
        pipeline_for(embedder, other, FrameClock())


def test_an_empty_picture_is_processed(embedder, gallery):
    """An image without faces makes no events."""
    pipeline, _ = pipeline_for(embedder, GalleryHolder(gallery), FrameClock())
    report = pipeline.process(Frame(np.full((480, 640, 3), 90, np.uint8), 0, 0.0))
    assert (report.sightings, report.events) == ((), ())


def test_the_same_seed_makes_the_same_videos(samples, tmp_path):
    """The demo is reproducible; its two cameras show different videos."""
    again = make_sample(tmp_path, cameras=1)[0]
    assert again.appearances == samples[0].appearances
    assert again.path.read_bytes() == samples[0].path.read_bytes()
    assert samples[1].appearances != samples[0].appearances
    assert 20 <= samples[0].frames / FPS <= 25
