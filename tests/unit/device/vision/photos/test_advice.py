"""Photos that can be used, and what would make better ones."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder

PORTRAIT = np.ascontiguousarray(astronaut()[:300, 80:380, ::-1])
SMALL = cv2.resize(PORTRAIT, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def photos():
    return PhotoEmbedder(load_detector(), load_embedder())


def advice(photos, picture):
    face = photos.embed_photo(cv2.imencode(".png", picture)[1].tobytes())
    return {warning.code: warning.detail for warning in face.warnings}


def test_a_good_photo_has_no_warnings(photos):
    """The portrait has 106 pixels of a sharp face."""
    assert advice(photos, PORTRAIT) == {}


@pytest.mark.parametrize(
    ("picture", "code", "what_to_do"),
    [
        (
            cv2.resize(PORTRAIT, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
            "photo-small",
            "come closer",
        ),
        (cv2.GaussianBlur(PORTRAIT, (0, 0), 4), "photo-blurred", "hold camera and head still"),
        (cv2.blur(PORTRAIT, (17, 1)), "photo-blurred", "use more light"),
        ((PORTRAIT * 0.22).astype(np.uint8), "photo-dark", "light it from the front"),
        (np.clip(PORTRAIT * 0.3 + 178, 0, 255).astype(np.uint8), "photo-bright", "avoid flash"),
    ],
    ids=["small", "out of focus", "moved", "dark", "bright"],
)
def test_a_photo_that_could_be_better_says_how(photos, picture, code, what_to_do):
    """The photo is used; a stable code and a sentence with what to do come with it."""
    assert what_to_do in advice(photos, picture)[code]


def test_a_photo_may_have_several_warnings(photos):
    """A face that is small and dark says both."""
    assert {"photo-small", "photo-dark"} <= set(advice(photos, (SMALL * 0.22).astype(np.uint8)))
