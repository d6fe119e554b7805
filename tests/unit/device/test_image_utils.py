"""Event images: within the budget, of the face, and None where that cannot be."""

import base64

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from device import image_utils
from device.image_utils import compress_image_for_event, compress_to_jpeg


def photograph(width, height):
    """A busy 8-bit picture of that size, from a real one."""
    return np.ascontiguousarray(cv2.resize(astronaut()[..., ::-1], (width, height)))


def decode(text):
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def encodes(monkeypatch):
    """How many times a JPEG was made."""
    made = []
    encode = cv2.imencode
    monkeypatch.setattr(image_utils.cv2, "imencode", lambda *args: made.append(args[0]) or encode(*args))
    return made


def test_a_face_crop_needs_one_encode(encodes):
    """400x400 at quality 90 fits into 50 KB at once."""
    text = compress_image_for_event(photograph(1920, 1080), 50, [800, 300, 222, 222])
    assert len(base64.b64decode(text)) <= 50_000
    assert len(encodes) == 1
    height, width = decode(text).shape[:2]
    assert (width, height) == pytest.approx((400, 400), abs=2)


@pytest.mark.parametrize("kilobytes", [8, 20, 50, 120])
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080)])
def test_a_whole_frame_fits_in_few_encodes(encodes, size, kilobytes):
    """The first encode tells how far off it is; the estimate then lands within two or three."""
    jpeg = compress_to_jpeg(photograph(*size), kilobytes * 1000)
    assert jpeg is not None
    assert jpeg.startswith(b"\xff\xd8")
    assert 0.3 * kilobytes * 1000 < len(jpeg) <= kilobytes * 1000 or len(encodes) == 1
    assert len(encodes) <= 3


def test_even_noise_fits():
    """The worst picture there is."""
    noise = np.random.default_rng(1).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    assert len(compress_to_jpeg(noise, 50_000)) <= 50_000


def test_the_crop_shows_the_face_and_stops_at_the_edge():
    """A red face in the corner: padded where there is picture, cut where there is none."""
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[:60, :60, 2] = 250
    shown = decode(compress_image_for_event(frame, 50, [0, 0, 60, 60], padding=0.5))
    assert shown.shape[:2] == (90, 90)
    assert shown[20, 20, 2] > 200
    assert shown[80, 80, 2] < 50


def test_a_grey_frame_is_taken_too():
    """Infrared cameras give one channel."""
    assert compress_image_for_event(photograph(640, 480)[..., 0]) is not None


@pytest.mark.parametrize(
    "box", [[700, 0, 50, 50], [-90, -90, 50, 50], [5, 5, 0, 10], [float("nan"), 0, 9, 9], [float("inf")] * 4]
)
def test_a_box_outside_of_the_picture_gives_none(box):
    """Better no image than one of something else."""
    assert compress_image_for_event(photograph(640, 480), 50, box) is None


def test_an_empty_picture_or_an_impossible_budget_gives_none():
    """Nothing raises on the way to an event."""
    assert compress_image_for_event(np.zeros((0, 0, 3), np.uint8)) is None
    assert compress_image_for_event(np.zeros((5, 5, 3), np.float32)) is None
    assert compress_image_for_event(photograph(640, 480), 0.1) is None
