"""YuNet in OpenCV: networks of known answers, and files that OpenCV must not read."""

import numpy as np
import pytest

from device.vision.detectors.loader import load_detector
from device.vision.detectors.yunet import YuNetDetector
from device.vision.inference.session import ModelError
from tests.detector_networks import POINTS, save_scrfd, save_yunet
from tests.networks import save_channel_means

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def yunet(tmp_path_factory):
    return YuNetDetector(save_yunet(tmp_path_factory.mktemp("model") / "yunet.onnx"))


def picture(colour=RED, stride=8, x=320, y=256, size=(640, 480)):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[y : y + stride, x : x + stride] = colour
    return image


@pytest.mark.parametrize(
    ("colour", "stride"), [(RED, 8), (GREEN, 16), (BLUE, 32)], ids=["stride 8", "stride 16", "stride 32"]
)
def test_each_stride_finds_its_face_where_it_is(yunet, colour, stride):
    """The box is six strides wide and eight high.

    The eye at the picture's left is first.
    """
    found = yunet.detect(picture(colour, stride, 320, 256))
    middle = (320 + stride / 2, 256 + stride / 2)
    np.testing.assert_allclose(
        found.boxes, [[middle[0] - 3 * stride, middle[1] - 4 * stride, 6 * stride, 8 * stride]], rtol=1e-5
    )
    points = np.array(POINTS).reshape(5, 2) * stride + (320, 256)
    np.testing.assert_allclose(found.landmarks, [points], rtol=1e-5)
    assert found.landmarks[0, 0, 0] < found.landmarks[0, 1, 0]
    assert found.scores.tolist() == [1.0]


def test_the_size_of_frames_may_change(yunet):
    """1080p is reduced for the search, and the result is in its pixels."""
    assert len(yunet.detect(picture(size=(640, 480)))) == 1
    found = yunet.detect(picture(BLUE, 96, 960, 576, size=(1920, 1080)))
    np.testing.assert_allclose(found.boxes, [[1008 - 288, 624 - 384, 576, 768]], atol=2)
    assert len(yunet.detect(picture(x=16, y=16, size=(100, 70)))) == 1
    assert len(yunet.detect(picture(size=(640, 480)))) == 1


def test_frames_without_a_face_have_no_rows(yunet):
    """The frame is dark, has one pixel, or none."""
    for shape in [(480, 640, 3), (1, 1, 3), (1, 5000, 3), (0, 0, 3)]:
        found = yunet.detect(np.zeros(shape, np.uint8))
        assert (found.boxes.shape, found.scores.shape, found.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


def test_a_grey_frame_is_refused(yunet):
    """The error is a sentence instead of OpenCV's assertion."""
    with pytest.raises(ValueError, match="uint8\\[h, w, 3\\] in BGR"):
        yunet.detect(np.zeros((480, 640), np.uint8))


def test_a_face_below_the_score_or_the_size_is_not_reported(tmp_path):
    """YuNet's score is the root of class times objectness."""
    path = save_yunet(tmp_path / "yunet.onnx")
    half = picture((0, 0, 128))
    assert len(YuNetDetector(path, score=0.75).detect(half)) == 0
    assert len(YuNetDetector(path, score=0.65).detect(half)) == 1
    assert len(YuNetDetector(path, min_face_pixels=65).detect(picture())) == 0
    assert len(YuNetDetector(path, min_face_pixels=60).detect(picture())) == 1


@pytest.mark.parametrize(
    "spoilt",
    [{"box": (NAN, 0.5, 1, 1)}, {"box": (0.5, 0.5, INF, 1)}, {"objectness": NAN}],
    ids=["NaN", "infinite", "score NaN"],
)
def test_a_network_that_returns_no_numbers_is_refused(tmp_path, spoilt):
    """It would never find a face, so the constructor raises."""
    with pytest.raises(ModelError, match=r"yunet.onnx answers NaN or infinity as") as caught:
        YuNetDetector(save_yunet(tmp_path / "yunet.onnx", **spoilt))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoilt", [{"box": (0.5, 0.5, 100, 1)}, {"box": (100, 0.5, 100, 1)}])
def test_a_box_that_overflows_raises(tmp_path, spoilt):
    """The outputs of the network are finite, but their box is not."""
    yunet = YuNetDetector(save_yunet(tmp_path / "yunet.onnx", **spoilt))
    assert len(yunet.detect(picture((0, 0, 0)))) == 0
    with pytest.raises(ModelError, match=r"yunet.onnx answers NaN or infinity where"):
        yunet.detect(picture())


@pytest.mark.parametrize(
    "spoilt", [{"box": (0.5, 0.5, -200, 1)}, {"box": (-90, 0.5, 1, 1)}], ids=["no width", "outside"]
)
def test_boxes_without_area_are_no_face(tmp_path, spoilt):
    """The outputs of a broken network have one valid face, or two."""
    yunet = YuNetDetector(save_yunet(tmp_path / "yunet.onnx", **spoilt))
    frame = picture()
    assert len(yunet.detect(frame)) == 0
    frame[64:72, 64:72] = RED
    assert len(yunet.detect(frame)) == 0


@pytest.mark.parametrize(
    "make",
    [
        save_channel_means,
        save_scrfd,
        lambda path: save_yunet(path, without="kps_16"),
        lambda path: save_yunet(path, channels=8),
        lambda path: save_yunet(path, fixed=True),
    ],
    ids=["classifier", "SCRFD", "an output less", "4 landmarks", "fixed size"],
)
def test_another_network_is_refused(tmp_path, make):
    """OpenCV would read past the end of its outputs."""
    with pytest.raises(ModelError, match="YuNet") as caught:
        YuNetDetector(make(tmp_path / "other.onnx"))
    assert "other.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", None], ids=["empty", "text", "truncated"])
def test_a_file_that_is_no_network_is_refused(tmp_path, content):
    """The error is a ModelError instead of a cv2.error."""
    path = save_yunet(tmp_path / "yunet.onnx")
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(ModelError, match=r"yunet\.onnx") as caught:
        YuNetDetector(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_engine_are_named(tmp_path):
    """YuNet runs from its ONNX file only."""
    with pytest.raises(ModelError, match=r"absent\.onnx cannot be read"):
        load_detector("yunet", tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="TensorRT engine"):
        load_detector("yunet", tmp_path / "yunet.engine")


def test_the_detector_has_its_name(tmp_path):
    """The column `detector` stores it."""
    assert load_detector("yunet", save_yunet(tmp_path / "yunet.onnx")).name == "yunet"
