"""SCRFD with networks of known answers, in InsightFace's shapes and in others."""

import cv2
import numpy as np
import pytest

from device.vision.detectors.loader import load_detector
from device.vision.detectors.scrfd import ScrfdDetector
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError, TensorInfo
from tests.detector_networks import POINTS, SCRFD_BOX, save_scrfd
from tests.networks import save_channel_means, save_identity

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)
FIVE_STRIDES = (8, 16, 32, 64, 128)


def detector_of(path, **settings):
    return ScrfdDetector(open_session(path), **settings)


@pytest.fixture(scope="module")
def scrfd(tmp_path_factory):
    return detector_of(save_scrfd(tmp_path_factory.mktemp("model") / "scrfd.onnx"))


def picture(*cells, size=(640, 640)):
    """Return a black picture with a coloured square of `stride` pixels at each cell."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for colour, stride, x, y in cells:
        image[y : y + stride, x : x + stride] = colour
    return image


def expected(stride, x, y):
    """Return the box xywh and the landmarks of the anchor at (x, y)."""
    left, top, right, bottom = (stride * side for side in SCRFD_BOX)
    points = np.array(POINTS).reshape(5, 2) * stride + (x, y)
    return [x - left, y - top, left + right, top + bottom], points


@pytest.mark.parametrize(
    ("colour", "stride"), [(RED, 8), (GREEN, 16), (BLUE, 32)], ids=["stride 8", "stride 16", "stride 32"]
)
def test_each_stride_finds_its_face_where_it_is(scrfd, colour, stride):
    """Box and landmarks are the anchor plus the outputs in strides; colours are RGB."""
    found = scrfd.detect(picture((colour, stride, 320, 256)))
    box, points = expected(stride, 320, 256)
    np.testing.assert_allclose(found.boxes, [box])
    np.testing.assert_allclose(found.landmarks, [points])
    assert found.scores[0] == pytest.approx(127.5 / 128)


@pytest.mark.parametrize("batched", [False, True], ids=["rows", "batch of rows"])
@pytest.mark.parametrize("landmarks", [True, False], ids=["landmarks", "no landmarks"])
@pytest.mark.parametrize(
    "order", [("score", "box", "points"), ("points", "score", "box")], ids=["usual", "reordered"]
)
@pytest.mark.parametrize(
    ("strides", "anchors", "size"),
    [((8, 16, 32), 2, "free"), ((8, 16, 32), 1, 320), (FIVE_STRIDES, 1, 640)],
    ids=["3 strides", "1 anchor, 320", "5 strides"],
)
def test_outputs_are_identified_by_their_shapes(tmp_path, strides, anchors, size, landmarks, batched, order):
    """Six, nine, ten or fifteen outputs may come in any order.

    A batch dimension is optional.
    """
    network = save_scrfd(
        tmp_path / "scrfd.onnx",
        strides=strides,
        anchors=anchors,
        size=size,
        landmarks=landmarks,
        batched=batched,
        order=order,
    )
    side = 320 if size == 320 else 640
    found = detector_of(network).detect(picture((GREEN, 16, 160, 128), size=(side, side)))
    box, points = expected(16, 160, 128)
    np.testing.assert_allclose(found.boxes, [box])
    if landmarks:
        np.testing.assert_allclose(found.landmarks, [points])
    else:
        assert found.landmarks is None


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 960), (320, 240), (480, 640)])
def test_a_frame_of_any_size_is_letterboxed(scrfd, size):
    """The result is in pixels of the frame."""
    scale = 640 / max(size)
    anchor = (192, 160)
    left, top, side = round(anchor[0] / scale), round(anchor[1] / scale), round(32 / scale)
    found = scrfd.detect(picture((BLUE, side, left, top), size=size))
    assert len(found) == 1
    box, points = expected(32, *anchor)
    inside = np.clip([box[0], box[1], box[0] + box[2], box[1] + box[3]], 0, 1e9) / scale
    np.testing.assert_allclose(found.boxes[0, :2], inside[:2], atol=1.5)
    np.testing.assert_allclose(found.boxes[0, :2] + found.boxes[0, 2:], inside[2:], atol=1.5)
    np.testing.assert_allclose(found.landmarks[0], points / scale, atol=1.5)


def test_the_smallest_and_the_thinnest_frame_have_no_face(scrfd):
    """A frame of one pixel and one of a line do not divide by zero."""
    for size in [(1, 1), (5000, 1), (1, 5000)]:
        assert len(scrfd.detect(np.zeros((size[1], size[0], 3), np.uint8))) == 0


def test_overlapping_boxes_become_one_and_others_stay(scrfd):
    """Boxes that overlap by more than 0.4 of their union are one face."""
    neighbours = scrfd.detect(picture((RED, 8, 320, 256), (RED, 8, 328, 256)))
    assert len(neighbours) == 1
    apart = scrfd.detect(picture((RED, 8, 320, 256), (RED, 8, 400, 256)))
    assert sorted(apart.boxes[:, 0].tolist()) == [304.0, 384.0]
    strides = scrfd.detect(picture((RED, 8, 64, 64), (BLUE, 32, 320, 320)))
    assert sorted(strides.boxes[:, 2].tolist()) == [48.0, 192.0]


def test_a_face_below_the_score_or_the_size_is_not_reported(scrfd, tmp_path):
    """A half-red cell has half the score."""
    path = save_scrfd(tmp_path / "scrfd.onnx")
    half = picture(((0, 0, 191), 8, 320, 256))
    assert len(detector_of(path, score=0.6).detect(half)) == 0
    assert len(detector_of(path, score=0.4).detect(half)) == 1
    whole = picture((RED, 8, 320, 256))
    assert len(detector_of(path, min_face_pixels=65).detect(whole)) == 0
    assert len(detector_of(path, min_face_pixels=64).detect(whole)) == 1


def test_a_box_over_the_edge_is_cut_and_one_beyond_it_dropped(tmp_path):
    """All boxes are within the picture."""
    network = save_scrfd(tmp_path / "scrfd.onnx", box=(9, 9, 9, 9))
    found = detector_of(network).detect(picture((RED, 8, 0, 0)))
    np.testing.assert_allclose(found.boxes, [[0, 0, 72, 72]])
    beyond = save_scrfd(tmp_path / "beyond.onnx", box=(4, 0, -3, 5))
    assert len(detector_of(beyond).detect(picture((RED, 8, 0, 0)))) == 0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "spoilt",
    [{"score_bias": NAN}, {"box": (NAN, 1, 1, 1)}, {"box": (1, 1, INF, 1)}],
    ids=["score NaN", "box NaN", "box infinite"],
)
def test_a_network_that_returns_no_numbers_raises(tmp_path, spoilt):
    """Without an error the camera would never find a face."""
    network = save_scrfd(tmp_path / "scrfd.onnx", **spoilt)
    with pytest.raises(ModelError, match=r"scrfd.onnx answers NaN or infinity") as caught:
        detector_of(network).detect(picture((RED, 8, 320, 256)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoilt", [{"box": (0, 0, 0, 0)}, {"box": (1, 1, -3, 1)}], ids=["no area", "inside out"]
)
def test_boxes_without_area_are_no_face(tmp_path, spoilt):
    """The outputs of a broken network have one valid face."""
    network = save_scrfd(tmp_path / "scrfd.onnx", **spoilt)
    assert len(detector_of(network).detect(picture((RED, 8, 320, 256)))) == 0


def test_a_network_that_finds_faces_everywhere_is_bounded(tmp_path):
    """With all 16,800 anchors a bounded number is compared, all within the picture."""
    network = save_scrfd(tmp_path / "scrfd.onnx", score_bias=5.0)
    found = detector_of(network).detect(picture())
    assert 0 < len(found) <= 1000
    assert (found.boxes >= 0).all()


def test_a_frame_without_pixels_has_no_face(scrfd):
    """The landmarks of no face have their shape."""
    found = scrfd.detect(np.zeros((0, 0, 3), np.uint8))
    assert (found.boxes.shape, found.landmarks.shape) == ((0, 4), (0, 5, 2))


def test_a_grey_frame_is_refused(scrfd):
    """The sentence describes a frame."""
    with pytest.raises(ValueError, match="uint8\\[h, w, 3\\] in BGR"):
        scrfd.detect(np.zeros((480, 640), np.uint8))


@pytest.mark.parametrize(
    "make",
    [
        save_channel_means,
        save_identity,
        lambda path: save_identity(path, shape=(1, 3, 64, 64)),
        lambda path: save_channel_means(path, sides=(640, 640)),
        lambda path: save_scrfd(path, strides=(8, 16)),
        lambda path: save_scrfd(path, anchors=3),
        lambda path: save_scrfd(path, strides=(8, 16, 64)),
        lambda path: save_scrfd(path, box=(1, 1, 1)),
        lambda path: save_scrfd(path, points=POINTS[:8]),
        lambda path: save_scrfd(path, order=("score", "points")),
        lambda path: save_scrfd(path, size=200),
    ],
    ids=["112x112", "identity", "identity 64", "classifier", "2 strides", "3 anchors", "stride 64", "3 sides",
         "4 landmarks", "no boxes", "odd size"],
)  # fmt: skip
def test_another_network_is_refused(tmp_path, make):
    """The sentence at the start has the network's shapes and the expected ones."""
    with pytest.raises(ModelError, match="SCRFD") as caught:
        detector_of(make(tmp_path / "other.onnx"))
    assert "other.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    """An interrupted copy leaves such a file."""
    path = save_scrfd(tmp_path / "scrfd.onnx")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_detector("scrfd", path)


def test_a_missing_model_is_named(tmp_path):
    """The path is missing in the settings, or the file does not exist."""
    with pytest.raises(ModelError, match="scrfd needs the path"):
        load_detector("scrfd")
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        load_detector("scrfd", tmp_path / "absent.onnx")


class RecordingSession:
    """A session that records its batches and returns no face."""

    path = "recording"
    input = TensorInfo("input", (1, 3, None, None))

    def run(self, batch):
        self.batch = batch
        rows = [batch.shape[2] * batch.shape[3] // stride**2 for stride in (8, 16, 32)]
        return [np.zeros((count, width), np.float32) for width in (1, 4) for count in rows]


def test_the_input_equals_insightfaces():
    """It is RGB, (pixel - 127.5) / 128, resized into the top left corner on black."""
    session = RecordingSession()
    random = np.random.default_rng(5)
    frame = random.integers(0, 256, (480, 1280, 3), dtype=np.uint8)
    ScrfdDetector(session).detect(frame)
    rgb = cv2.resize(frame, (640, 240))[..., ::-1].astype(np.float32)
    np.testing.assert_allclose(session.batch[0, :, :240], ((rgb - 127.5) / 128).transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(session.batch[0, :, 240:], -127.5 / 128)


def test_the_detector_has_its_name(scrfd, tmp_path):
    """The column `detector` stores it; loading by kind gives the same detector."""
    loaded = load_detector("scrfd", save_scrfd(tmp_path / "scrfd.onnx"), min_face_pixels=16)
    assert (scrfd.name, loaded.name) == ("scrfd", "scrfd")
    assert len(loaded.detect(picture((RED, 8, 320, 256)))) == 1
