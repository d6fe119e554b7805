"""Event images: a JPEG of the face within the budget, or None with a reason."""

import base64
import logging

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, coffee, gravel, rocket

from device.events import image_utils
from device.events.image_utils import EventImage, compress_image_for_event, compress_to_jpeg, make_event_image


def photograph(width, height):
    """Return a photograph of the given size, uint8."""
    return np.ascontiguousarray(cv2.resize(astronaut()[..., ::-1], (width, height)))


def decode(text):
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def encodes(monkeypatch):
    """Return a list that counts the encoded JPEGs."""
    made = []
    encode = cv2.imencode
    monkeypatch.setattr(image_utils.cv2, "imencode", lambda *args: made.append(args[0]) or encode(*args))
    return made


def test_a_face_crop_needs_one_encode(encodes):
    """400x400 pixels at quality 90 fit into 50 KB."""
    text = compress_image_for_event(photograph(1920, 1080), 50, [800, 300, 222, 222])
    assert len(base64.b64decode(text)) <= 50_000
    assert len(encodes) == 1
    height, width = decode(text).shape[:2]
    assert (width, height) == pytest.approx((400, 400), abs=2)


@pytest.mark.parametrize("kilobytes", [8, 20, 50, 120])
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080)])
def test_a_whole_frame_fits_in_few_encodes(encodes, size, kilobytes):
    """The size is estimated before encoding, and most of the budget is used."""
    made = make_event_image(photograph(*size), kilobytes * 1000)
    assert made.jpeg.startswith(b"\xff\xd8")
    assert made.encodes == len(encodes) <= 2
    assert len(made.jpeg) <= kilobytes * 1000
    assert len(made.jpeg) > 0.75 * kilobytes * 1000 or quality_of(made.jpeg) == 90


def quality_of(jpeg):
    """Return the quality given to libjpeg.

    It follows from the last step of the luma table, which is 99 at quality 50.
    """
    scale = jpeg[jpeg.index(b"\xff\xdb") + 68] * 100 / 99
    return round(5000 / scale if scale > 100 else (200 - scale) / 2)


@pytest.fixture(scope="module")
def hard_frames():
    """Return 1080p photographs, smooth and textured, with and without noise."""
    noise = np.random.default_rng(4)
    frames = []
    for picture in (astronaut(), coffee(), rocket(), np.stack([gravel()] * 3, axis=-1)):
        smooth = cv2.resize(picture[..., ::-1], (1920, 1080), interpolation=cv2.INTER_CUBIC)
        fine = np.tile(picture[..., ::-1], (3, 5, 1))[:1080, :1920]
        for frame in (smooth, fine):
            for level in (0, 8, 30):
                noisy = frame + noise.normal(0, level, frame.shape) if level else frame
                frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return frames


@pytest.mark.parametrize("side", [None, 120, 260, 500])
def test_no_more_than_two_encodes_in_95_of_100_frames(hard_frames, side):
    """The frames have every texture and noise, and are whole or cropped to a face.

    The quality stays high enough to look at.
    """
    box = side and [700, 300, side, side]
    made = [make_event_image(frame, 50_000, box) for frame in hard_frames]
    assert all(len(image.jpeg) <= 50_000 for image in made)
    assert sorted(image.encodes for image in made)[int(0.95 * len(made))] <= 2
    assert np.mean([image.encodes for image in made]) < 1.2
    assert np.mean([quality_of(image.jpeg) for image in made]) > 70
    assert min(quality_of(image.jpeg) for image in made) >= 59


def test_even_noise_fits():
    """Noise is the largest picture to encode."""
    noise = np.random.default_rng(1).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    made = make_event_image(noise, 50_000)
    assert len(made.jpeg) <= 50_000
    assert made.encodes <= 2


def test_a_wrong_estimate_is_corrected_by_the_encoded_size(monkeypatch, encodes):
    """With an estimate of a third the second encode fits."""
    estimate = image_utils.JpegSample.bytes_at
    monkeypatch.setattr(image_utils.JpegSample, "bytes_at", lambda *args: estimate(*args) / 3)
    made = make_event_image(photograph(1920, 1080), 50_000)
    assert len(made.jpeg) <= 50_000
    assert made.encodes == len(encodes) == 2


def test_a_lower_best_quality_can_be_requested():
    """The caller's best quality may be below the default minimum."""
    made = make_event_image(photograph(640, 480), 50_000, quality=40)
    assert quality_of(made.jpeg) == 40


def test_the_crop_shows_the_face_and_stops_at_the_edge():
    """A face in the corner is padded inside the picture and cut at its edge."""
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[:60, :60, 2] = 250
    shown = decode(compress_image_for_event(frame, 50, [0, 0, 60, 60], padding=0.5))
    assert shown.shape[:2] == (90, 90)
    assert shown[20, 20, 2] > 200
    assert shown[80, 80, 2] < 50


def test_a_grey_frame_is_accepted():
    """Infrared cameras have one channel."""
    assert compress_image_for_event(photograph(640, 480)[..., 0]) is not None


@pytest.mark.parametrize("picture", ["mirrored", "cut out", "transposed", "read-only", "one channel"])
def test_any_view_of_an_array_is_a_picture(picture):
    """Frames are often views: reversed channels, regions, buffers of other programs."""
    frame = photograph(640, 480)
    locked = frame.copy()
    locked.flags.writeable = False
    views = {
        "mirrored": frame[:, ::-1, ::-1],
        "cut out": frame[11:301:2, 13:411],
        "transposed": frame.transpose(1, 0, 2),
        "read-only": locked,
        "one channel": frame[..., :1],
    }
    view = views[picture]
    assert decode(compress_image_for_event(view)).shape[:2] == view.shape[:2]
    assert compress_image_for_event(view, 50, [20, 20, 60, 60]) is not None


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (3, 2000, 3), (2000, 3), (15, 17, 3), (16, 16)])
def test_the_smallest_and_the_thinnest_pictures_are_encoded(shape):
    """They are smaller than a JPEG's coded unit."""
    assert compress_image_for_event(np.full(shape, 90, np.uint8)) is not None


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([700, 0, 50, 50], "outside of the 640x480 frame"),
        ([-90, -90, 50, 50], "outside"),
        ([5, 5, 0, 10], "not empty"),
        ([5, 5, 10, -10], "not empty"),
        ([float("nan"), 0, 9, 9], "finite"),
        ([float("inf")] * 4, "finite"),
        ([1e308, -1e308, 1.7e308, 1.7e308], "outside"),
        ([1, 2, 3], "x, y, width, height"),
        ([], "x, y, width, height"),
    ],
)
def test_a_box_without_a_face_gives_the_reason(box, reason):
    """No image is better than an image of something else."""
    made = make_event_image(photograph(640, 480), 50_000, box)
    assert made.jpeg is None
    assert reason in made.reason
    assert made.encodes == 0


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (np.zeros((0, 0, 3), np.uint8), "empty, 0x0"),
        (np.zeros((0, 5), np.uint8), "empty, 5x0"),
        (np.zeros((5, 5, 3), np.float32), "float32[5, 5, 3]"),
        (np.zeros((5, 5, 4), np.uint8), "uint8[5, 5, 4]"),
        (np.zeros((5, 5, 0), np.uint8), "uint8[5, 5, 0]"),
        (np.zeros(5, np.uint8), "uint8[5]"),
        (np.full((5, 5), np.nan), "float64[5, 5]"),
        (None, "NoneType"),
    ],
)
def test_an_invalid_frame_gives_the_reason(frame, reason):
    """No exception is raised on the way to an event."""
    made = make_event_image(frame, 50_000, [1, 1, 2, 2])
    assert made.jpeg is None
    assert reason in made.reason


@pytest.mark.parametrize("budget", [0, -1, 100, 600, float("nan")])
def test_an_impossible_budget_gives_the_reason(budget):
    """A JPEG's tables alone have 600 bytes, so no JPEG is encoded."""
    made = make_event_image(photograph(1920, 1080), budget)
    assert made.jpeg is None
    assert f"1920x1080 image fits into {budget:g} bytes" in made.reason
    assert made.encodes <= 1


def test_the_reason_is_logged_once(caplog):
    """The event is sent without its image, and the log has the reason."""
    with caplog.at_level(logging.WARNING):
        assert compress_image_for_event(photograph(640, 480), 50, [700, 0, 50, 50]) is None
    assert [record.getMessage() for record in caplog.records] == [
        "event image not made reason='the face box lies outside of the 640x480 frame'"
    ]


def test_bytes_and_text_are_the_same_image():
    """The text is the base64 of the bytes."""
    frame = photograph(640, 480)
    assert base64.b64decode(compress_image_for_event(frame, 20)) == compress_to_jpeg(frame, 20_000)


@pytest.mark.parametrize("settings", [{"padding": -1}, {"max_side": 0}, {"quality": 0}, {"quality": 101}])
def test_invalid_settings_are_an_error(settings):
    """They are a mistake of the program, not of the picture."""
    with pytest.raises(ValueError, match="expected a padding"):
        make_event_image(photograph(640, 480), 50_000, **settings)


@pytest.mark.parametrize(("jpeg", "reason"), [(None, None), (b"\xff\xd8", "but why")])
def test_an_event_image_has_a_jpeg_or_a_reason(jpeg, reason):
    """Neither and both are refused."""
    with pytest.raises(ValueError, match="reason"):
        EventImage(jpeg, reason, 1)
