"""New pictures, repeated ones, and pictures of one colour."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from device.vision.capture.picture_watch import PictureWatch
from device.vision.capture.sources import Image

SCENE: Image = np.ascontiguousarray(cv2.resize(astronaut()[..., ::-1], (640, 480)))
PICTURES = 20
FPS = 10.0
rng = np.random.default_rng(11)

Picture = Callable[[int], Image]


def noisy(image: Image, sigma: float) -> Image:
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).round().astype(np.uint8)


def jpeg(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def with_clock(image: Image, number: int, y: int) -> Image:
    shown = image.copy()
    text = f"2026-01-15 10:00:{number % 60:02}"
    cv2.putText(shown, text, (10, y), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    return shown


def swaying(number: int) -> Image:
    shift = np.array([[1, 0, 3 * np.sin(number / 3)], [0, 1, 0]], np.float32)
    return cv2.warpAffine(SCENE, shift, (640, 480), borderMode=cv2.BORDER_REPLICATE)


def flat(level: int) -> Image:
    return np.full((480, 640, 3), level, np.uint8)


def watched(picture: Picture, seconds: float = PICTURES / FPS, fps: float = FPS) -> tuple[PictureWatch, int]:
    watch = PictureWatch()
    new = sum(watch.add(picture(number), number / fps) for number in range(int(seconds * fps) + 1))
    return watch, new


@pytest.mark.parametrize(
    ("picture", "most"),
    [
        (lambda _: SCENE.copy(), 1),
        (lambda number: jpeg(SCENE, (85, 90)[number % 2]), 2),
        (lambda number: jpeg(SCENE, 88 + number % 4), 4),
        (lambda number: with_clock(SCENE, number, 30), 1),
        (lambda number: with_clock(SCENE, number, 470), 1),
        (lambda number: jpeg(with_clock(SCENE, number, 30), 85), 2),
        (lambda number: (SCENE, SCENE[:, ::-1])[number % 2], 2),
        (lambda number: np.clip(SCENE.astype(int) + number % 2, 0, 255).astype(np.uint8), 1),
    ],
    ids=[
        "equal",
        "two encodings",
        "four encodings",
        "clock above",
        "clock below",
        "encoded clock",
        "two",
        "1",
    ],
)
def test_a_frozen_picture_is_new_once(picture: Picture, most: int) -> None:
    """Compression, a burnt-in clock and a stuck pair of buffers make it no newer."""
    watch, new = watched(picture)
    assert 1 <= new <= most
    assert watch.repeated == PICTURES + 1 - new


@pytest.mark.parametrize(
    "picture",
    [
        lambda _: noisy(SCENE, 1.0),
        lambda _: noisy(SCENE, 3.0),
        lambda _: jpeg(noisy(SCENE, 2.0), 80),
        lambda number: with_clock(noisy(SCENE, 2.0), number, 30),
    ],
    ids=["noise of 1", "noise of 3", "encoded noise", "noise and clock"],
)
def test_a_still_person_before_a_live_camera_is_always_new(picture: Picture) -> None:
    """The noise of a sensor differs in every frame."""
    assert watched(picture)[1] == PICTURES + 1


def test_a_person_who_sways_before_a_camera_without_noise_is_new_often_enough() -> None:
    """Five new frames confirm an identity."""
    watch, new = watched(swaying)
    assert new >= 6
    assert not watch.is_frozen


def test_equal_pictures_are_frozen_after_ten_seconds_until_one_is_new() -> None:
    """The frame rate falls meanwhile."""
    watch, _ = watched(lambda _: SCENE, 9.8)
    assert not watch.is_frozen
    assert watch.limit_fps(FPS, 9.8) == pytest.approx(1 / 9.8)
    watch.add(SCENE, 10.0)
    assert (watch.is_frozen, watch.is_dark) == (True, False)
    watch.add(noisy(SCENE, 3.0), 10.1)
    assert not watch.is_frozen
    assert watch.limit_fps(FPS, 10.2) == pytest.approx(FPS)


@pytest.mark.parametrize("picture", [lambda n: jpeg(SCENE, 85 + n % 2), lambda n: with_clock(SCENE, n, 30)])
def test_nearly_equal_pictures_are_frozen_after_a_minute(picture: Picture) -> None:
    """An empty corridor may look so for a while."""
    watch = PictureWatch()
    for second in range(55):
        watch.add(picture(second), float(second))
    assert not watch.is_frozen
    for second in range(55, 65):
        watch.add(picture(second), float(second))
    assert watch.is_frozen


@pytest.mark.parametrize(
    "picture",
    [
        lambda _: flat(0),
        lambda _: flat(255),
        lambda _: flat(128),
        lambda _: noisy(flat(3), 3.0),
        lambda _: noisy(flat(250), 4.0),
        lambda number: with_clock(flat(0), number, 30),
        lambda number: with_clock(noisy(flat(2), 2.0), number, 470),
    ],
    ids=["black", "white", "grey", "noisy black", "noisy white", "black with clock", "noise and clock"],
)
def test_a_picture_of_one_colour_is_dark_after_five_seconds(picture: Picture) -> None:
    """It is not called frozen too; a picture with a scene clears it."""
    watch, _ = watched(picture, 4.0, 1.0)
    assert not watch.is_dark
    for number in range(5, 12):
        watch.add(picture(number), float(number))
    assert (watch.is_dark, watch.is_frozen) == (True, False)
    watch.add(SCENE, 12.0)
    assert not watch.is_dark


def test_a_night_scene_with_a_lamp_is_not_dark() -> None:
    """A dim scene still has a face in it."""
    dim = (SCENE // 6).astype(np.uint8)
    watch, _ = watched(lambda _: noisy(dim, 2.0), 8.0, 1.0)
    assert not watch.is_dark


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 1, 3), (20, 3000, 3), (300, 5, 3)])
def test_odd_sizes_are_watched_too(shape: tuple[int, int, int]) -> None:
    """A change of the size is a new picture."""
    watch = PictureWatch()
    assert watch.add(np.zeros(shape, np.uint8), 0.0)
    assert not watch.add(np.zeros(shape, np.uint8), 0.1)
    assert watch.add(SCENE, 0.2)
