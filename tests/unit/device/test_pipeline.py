"""The whole line from video to events, on the sample videos that the demo plays."""

import numpy as np
import pytest

from broker_bridge.contract.embeddings import EmbeddingSpace, to_array
from deploy.local.sample_video import FPS, PEOPLE, UNKNOWN, enrollment_photo, make_sample
from device.event_validator import EventValidator
from device.pipeline import RecognitionPipeline
from device.vision import gabor
from device.vision.camera import Frame, open_camera
from device.vision.cascade import CascadeDetector
from device.vision.detector import Detections
from device.vision.embedder import load_embedder
from device.vision.enroll import PhotoEmbedder
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.tracker import IouTracker

NAMES = {row: user_id for user_id, row in PEOPLE.items()}


@pytest.fixture(scope="module")
def embedder():
    return load_embedder()


@pytest.fixture(scope="module")
def gallery(embedder):
    """The demo's people, enrolled by photo."""
    photos = PhotoEmbedder(CascadeDetector(), embedder)
    vectors = [to_array(photos.embed_photo(enrollment_photo(row)).vector) for row in PEOPLE.values()]
    return Gallery(embedder.space, list(PEOPLE), np.stack(vectors), version=6)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("videos"))


class Clock:
    """Stands at the time of the frame."""

    now = 0.0

    def __call__(self):
        return self.now


def pipeline_for(embedder, galleries, clock, **settings):
    validator = EventValidator(
        "cam-001", distance_threshold=gabor.DISTANCE_THRESHOLD, clock=clock, **settings
    )
    return RecognitionPipeline(
        CascadeDetector(), IouTracker(), embedder, galleries, validator, min_margin=gabor.MIN_MARGIN
    ), validator


@pytest.mark.parametrize("camera", [0, 1])
def test_everyone_enrolled_triggers_once_and_the_unknown_never(embedder, gallery, samples, camera):
    """Each event comes while its person is in the picture, bears that face's box, and follows in order."""
    sample, clock = samples[camera], Clock()
    pipeline, validator = pipeline_for(embedder, GalleryHolder(gallery), clock)
    events = {}
    with open_camera(str(sample.path), fps=0, clock=clock) as frames:
        for frame in frames:
            clock.now = frame.index / FPS
            for event, box in pipeline.process(frame):
                assert event.user_id not in events
                events[event.user_id] = (frame.index, box, event)
    expected = [seen for seen in sample.appearances if seen.person != UNKNOWN]
    assert set(events) == {NAMES[seen.person] for seen in expected}
    for seen in expected:
        index, box, event = events[NAMES[seen.person]]
        assert seen.first_frame + 4 <= index <= seen.first_frame + 12
        assert abs(box.x + box.width / 2 - (seen.left + 80)) < 50
        assert event.metadata["gallery_version"] == 6
        assert event.metadata["margin"] > gabor.MIN_MARGIN
    assert pipeline.stats.counts["frames"] == sample.frames
    assert pipeline.stats.counts["events"] == len(expected)
    assert pipeline.stats.fps == pytest.approx(FPS, rel=0.1)
    assert validator.refusals["below_threshold"] + validator.refusals["no_match"] >= 20


def test_a_deleted_person_is_not_recognised_from_the_next_frame_on(embedder, gallery, samples):
    """The gallery is swapped while the camera runs: somebody who left it gives no event, the others do."""
    sample, clock = samples[0], Clock()
    gone, stays = (NAMES[seen.person] for seen in sample.appearances[:2])
    kept = [user_id for user_id in PEOPLE if user_id != gone]
    rows = [to_array_of(embedder, PEOPLE[user_id]) for user_id in kept]
    galleries = GalleryHolder(gallery)
    pipeline, _ = pipeline_for(embedder, galleries, clock)
    recognised = []
    with open_camera(str(sample.path), fps=0, clock=clock) as frames:
        for frame in frames:
            clock.now = frame.index / FPS
            if frame.index == sample.appearances[0].first_frame + 2:
                galleries.swap(Gallery(embedder.space, kept, np.stack(rows), version=7))
            recognised += [event.user_id for event, _ in pipeline.process(frame)]
            if frame.index > sample.appearances[1].last_frame:
                break
    assert recognised == [stays]


def to_array_of(embedder, row):
    return to_array(PhotoEmbedder(CascadeDetector(), embedder).embed_photo(enrollment_photo(row)).vector)


class OneFace:
    """A detector that always sees one face, and an embedder that always answers the same vector."""

    space = EmbeddingSpace("face:test", 2)

    def detect(self, image):
        return Detections(np.array([[10, 10, 50, 50]], np.float32), np.ones(1, np.float32))

    def embed(self, faces):
        return np.tile(np.array([[1, 0]], np.float32), (len(faces), 1))


def events_of_two(angle, min_margin):
    """Events of ten frames when the second person lies `angle` radians from the face, the first on it."""
    vectors = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
    holder = GalleryHolder(Gallery(OneFace.space, ["EMP-1", "EMP-2"], vectors))
    pipeline = RecognitionPipeline(
        OneFace(), IouTracker(), OneFace(), holder, EventValidator("cam-001"), min_margin=min_margin
    )
    frames = [Frame(np.zeros((80, 80, 3), np.uint8), index, index / 15) for index in range(10)]
    return [event for frame in frames for event, _ in pipeline.process(frame)], pipeline.stats.counts


def test_a_match_without_a_clear_lead_is_no_match():
    """Two people who are equally like the face: better nobody than the wrong one."""
    events, counts = events_of_two(angle=0.2, min_margin=0.05)
    assert (events, counts["low_margin"], counts["matches"]) == ([], 10, 0)
    events, counts = events_of_two(angle=0.6, min_margin=0.05)
    assert [event.user_id for event in events] == ["EMP-1"]
    assert (counts["low_margin"], counts["matches"]) == (0, 10)


def test_embedder_and_gallery_must_be_of_one_space(embedder):
    """A device never compares vectors of two models."""
    other = GalleryHolder(Gallery.empty(EmbeddingSpace("face:other", 512)))
    with pytest.raises(ValueError, match="face:other"):
        pipeline_for(embedder, other, Clock())


def test_an_empty_picture_goes_through(embedder, gallery):
    """No faces: no events, and no trouble with empty arrays."""
    pipeline, _ = pipeline_for(embedder, GalleryHolder(gallery), Clock())
    assert pipeline.process(Frame(np.full((480, 640, 3), 90, np.uint8), 0, 0.0)) == []


def test_the_same_seed_makes_the_same_videos(samples, tmp_path):
    """The demo shows the same thing every time; the two cameras show different things."""
    again = make_sample(tmp_path, cameras=1)[0]
    assert again.appearances == samples[0].appearances
    assert again.path.read_bytes() == samples[0].path.read_bytes()
    assert samples[1].appearances != samples[0].appearances
    assert 20 <= samples[0].frames / FPS <= 25
