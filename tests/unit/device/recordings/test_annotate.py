"""Run `wfm-device annotate` from the command line."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.messages import Upsert, WireTemplate
from deploy.local.sample_video import IDENTITIES, enrollment_photo, make_sample
from device.__main__ import app
from device.store.cursor import SyncCursor
from device.store.db_manager import DatabaseManager
from device.vision.detectors.detector import FaceBox
from device.vision.detectors.loader import load_detector
from device.vision.drawing import AMBER, GREEN, FaceNote, draw
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder

[KNOWN, *_] = IDENTITIES


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Return a folder with a video of an enrolled and an unknown person.

    The device in `data` has the enrolled identity.
    """
    folder = tmp_path_factory.mktemp("footage")
    photos = PhotoEmbedder(load_detector(), load_embedder())
    face = photos.embed_photo(enrollment_photo(IDENTITIES[KNOWN]))
    template = WireTemplate(
        template_id="t1", space=DEFAULT_FACE_SPACE.space, vector=face.vector, quality=face.quality
    )
    db = DatabaseManager(folder / "data" / "device.db")
    db.initialize()
    upsert = Upsert(user_id=KNOWN, version=1, templates=[template])
    db.apply_delta([upsert], [], SyncCursor("lobby", (DEFAULT_FACE_SPACE.space,), "aa", 1))
    db.close()
    return make_sample(folder, [IDENTITIES[KNOWN]], cameras=1)[0]


@pytest.fixture
def run(footage, monkeypatch):
    def run(*args, data="data"):
        monkeypatch.setenv("WFM_DEVICE__ID", "cam-001")
        monkeypatch.setenv("WFM_DEVICE__SITE", "lobby")
        monkeypatch.setenv("WFM_DEVICE__DATA_DIR", str(footage.path.parent / data))
        return CliRunner().invoke(app, ["annotate", *map(str, args)])

    return run


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (picture := capture.read()[1]) is not None:
        frames.append(picture)
    capture.release()
    return frames


def test_the_video_is_copied_with_annotations(run, footage, tmp_path):
    """All frames are copied with a box per face; the events are printed."""
    target = tmp_path / "out.mp4"
    ended = run(footage.path, "--output", target)
    assert ended.exit_code == 0, ended.output
    assert f"facial_id  {KNOWN}" in ended.output
    assert "unknown  unknown" in ended.output
    assert f"{footage.frames} frames, 2 events" in ended.output
    before, after = frames_of(footage.path), frames_of(target)
    assert len(after) == len(before) == footage.frames
    empty, full = 2, footage.appearances[0].first_frame + 20
    changed = [np.abs(after[n].astype(int) - before[n]).max(axis=2) > 60 for n in (empty, full)]
    assert not changed[0][40:].any()
    assert changed[1][100:400].sum() > 1000


def test_the_same_video_gives_the_same_events_at_any_speed(run, footage, tmp_path):
    """Times are those of the video."""
    first = run(footage.path, "-o", tmp_path / "1.mp4").output.replace("1.mp4", "")
    second = run(footage.path, "-o", tmp_path / "2.mp4").output.replace("2.mp4", "")
    assert first == second


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["nowhere.mp4"], "nowhere.mp4"),
        (["rtsp://camera/stream"], "annotate takes a file"),
        (["{video}", "-o", "{video}"], "must not replace"),
        (["{video}", "-o", "{folder}/out.txt"], ".mp4 or .avi"),
        (["{video}", "-o", "{folder}/not/there/out.mp4"], "cannot be written"),
        (["{text}"], "text.mp4"),
    ],
)
def test_an_impossible_request_ends_with_a_sentence(run, footage, tmp_path, args, sentence):
    """The exit status is 2, without a traceback."""
    (tmp_path / "text.mp4").write_text("not a video")
    names = {"video": footage.path, "folder": tmp_path, "text": tmp_path / "text.mp4"}
    ended = run(*(arg.format(**names) for arg in args))
    assert ended.exit_code == 2, ended.output
    assert sentence in ended.output
    assert footage.path.stat().st_size > 10_000


def test_a_device_without_a_database_is_an_error(run, footage, tmp_path):
    """Otherwise every face in the video would be unknown."""
    ended = run(footage.path, "-o", tmp_path / "out.mp4", data="elsewhere")
    assert ended.exit_code == 2
    assert "does not exist" in ended.output


def test_a_folder_of_pictures_becomes_a_video_of_one_size(run, footage, tmp_path):
    """Pictures are scaled to the first; unreadable ones are left out and reported."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("a.png", (320, 240)), ("b.png", (100, 300)), ("d.png", (17, 9))):
        cv2.imwrite(str(folder / name), np.full((size[1], size[0], 3), 120, np.uint8))
    (folder / "c.png").write_bytes(b"no picture")
    ended = run(folder)
    assert ended.exit_code == 0, ended.output
    assert "3 frames (1 damaged ones left out), 0 events" in ended.output
    assert {frame.shape for frame in frames_of(tmp_path / "pictures-annotated.mp4")} == {(240, 320, 3)}


def test_the_current_folder_can_be_annotated(run, footage, tmp_path, monkeypatch):
    """`.` has no name for the video."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((240, 320, 3), 120, np.uint8))
    monkeypatch.chdir(folder)
    ended = run(".")
    assert ended.exit_code == 0, ended.output
    assert frames_of(tmp_path / "pictures-annotated.mp4")


@pytest.mark.parametrize("second", [(640, 300), (470, 330), (400, 660)])
def test_labels_of_neighbouring_faces_do_not_overlap(second):
    """Neither label covers the other, or its own face."""
    blank = np.full((1080, 1920, 3), 200, np.uint8)
    lines = ["face_1", "nearest EMP-10001", "distance 0.33  margin 0.02", "inconsistent_track 3/5"]
    boxes = [FaceBox(400, 300, 220, 220), FaceBox(*second, 220, 220)]
    alone = [draw(blank, [FaceNote(box, lines, AMBER)], "") for box in boxes]
    both = draw(blank, [FaceNote(box, lines, AMBER) for box in boxes], "")

    def dark(image):
        return (image[60:] < 60).all(axis=2)

    inked = [dark(image).sum() for image in alone]
    assert dark(both).sum() > 0.97 * sum(inked)
    assert min(inked) > 10_000


def test_labels_stay_inside_the_picture():
    """Labels stay inside for faces at the edges and ids with unprintable characters."""
    image = np.full((120, 160, 3), 100, np.uint8)
    notes = [
        FaceNote(FaceBox(-10, -10, 40, 40), ["face_0", "EMP-\N{GREEK SMALL LETTER ALPHA}"], GREEN),
        FaceNote(FaceBox(140, 100, 40, 40), ["face_1", "x" * 80], AMBER, np.zeros((5, 2), np.float32), True),
    ]
    drawn = draw(image, notes, "header", ["footer"])
    assert drawn.shape == image.shape
    assert (image == 100).all()
    assert (drawn != image).any()
