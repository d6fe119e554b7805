"""The quality of a photo tells a face from dots, steps and blocks."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.data import astronaut

from device.vision.detectors.detector import FaceBox
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.photos.errors import PHOTO_NO_FACE, PHOTO_POOR, PhotoError
from device.vision.photos.tones import judge_tones

FACE = Image.fromarray(astronaut()[:300, 80:380])


@pytest.fixture(scope="module")
def photos() -> PhotoEmbedder:
    return PhotoEmbedder(load_detector(), load_embedder())


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def levels(change: Callable[[int], int]) -> Image.Image:
    return FACE.point(change)


def enlarged(times: int) -> Image.Image:
    small = FACE.resize((FACE.width // times, FACE.height // times))
    return small.resize(FACE.size, Image.Resampling.NEAREST)


USELESS = {
    "1-bit, dithered": encode(FACE.convert("1")),
    "1-bit, threshold": encode(FACE.convert("L").point(lambda level: 255 * (level > 128)).convert("1")),
    "1-bit, as colour": encode(FACE.convert("1").convert("RGB")),
    "1-bit, enlarged": encode(FACE.convert("1").resize((900, 900))),
    "four colours": encode(FACE.quantize(4)),
    "posterised": encode(levels(lambda level: level // 64 * 64)),
    "burnt out": encode(levels(lambda level: min(255, level * 3))),
}


@pytest.mark.parametrize("case", USELESS)
def test_a_face_of_no_use_is_refused_with_a_reason(photos: PhotoEmbedder, case: str) -> None:
    """A face whose shades are gone is `photo-poor`, unless none is found."""
    with pytest.raises(PhotoError) as caught:
        photos.embed_photo(USELESS[case])
    assert caught.value.code in (PHOTO_POOR, PHOTO_NO_FACE)
    if caught.value.code == PHOTO_POOR:
        assert "too few shades" in caught.value.detail or "black and white" in caught.value.detail


def test_a_dithered_face_has_no_shades(photos: PhotoEmbedder) -> None:
    """Its quality was 1.00, since every dot is an edge; where it is found at all."""
    dithered = Image.fromarray(astronaut()).convert("1")
    tones = judge_tones(np.asarray(dithered.convert("RGB")), FaceBox(172, 64, 106, 106))
    assert (tones.complaint() or "").startswith("the face has too few shades, as in a 1-bit")
    with pytest.raises(PhotoError) as caught:
        photos.embed_photo(encode(dithered))
    assert caught.value.code in (PHOTO_POOR, PHOTO_NO_FACE)


GOOD = {
    "png": encode(FACE),
    "jpeg 75": encode(FACE, "JPEG", quality=75),
    "jpeg 40": encode(FACE, "JPEG", quality=40),
    "webp": encode(FACE, "WEBP"),
    "grey": encode(FACE.convert("L")),
    "cmyk": encode(FACE.convert("CMYK"), "JPEG", quality=90),
    "16-bit": encode(Image.fromarray(np.asarray(FACE.convert("L")).astype(np.uint16) * 257)),
    "half the contrast": encode(levels(lambda level: 60 + level // 2)),
    "enlarged well": encode(FACE.resize((900, 900), Image.Resampling.BICUBIC)),
}
POOR = {
    "1-bit in a jpeg": encode(FACE.convert("1").convert("L"), "JPEG", quality=75),
    "sixteen levels": encode(FACE.convert("L").point(lambda level: level // 16 * 16)),
    "jpeg 5": encode(FACE, "JPEG", quality=5),
    "mosaic": encode(enlarged(4)),
    "mosaic in a jpeg": encode(enlarged(4), "JPEG", quality=85),
    "faint": encode(levels(lambda level: 100 + level // 10)),
    "dark": encode(levels(lambda level: level // 8)),
    "blurred": encode(FACE.filter(ImageFilter.GaussianBlur(5))),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_photo_keeps_its_quality(photos: PhotoEmbedder, case: str) -> None:
    """Compression, modes and enlargement of good photos cost little."""
    assert photos.embed_photo(GOOD[case]).quality > 0.5


@pytest.mark.parametrize("case", POOR)
def test_a_poor_photo_has_a_low_quality(photos: PhotoEmbedder, case: str) -> None:
    """It is far below that of the same face in a good photo, or refused."""
    try:
        quality = photos.embed_photo(POOR[case]).quality
    except PhotoError as error:
        assert error.code in (PHOTO_POOR, PHOTO_NO_FACE)  # noqa: PT017
    else:
        assert quality < 0.45


def test_landmarks_are_not_needed_for_tones(photos: PhotoEmbedder) -> None:
    """A box that reaches past the photo is cut."""
    tight = cv2.imencode(".png", np.asarray(FACE)[60:190, 80:210, ::-1])[1].tobytes()
    assert photos.embed_photo(tight).quality > 0.3
