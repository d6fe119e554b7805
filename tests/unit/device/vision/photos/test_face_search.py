"""A face of 100 pixels is found in a photo of any size."""

import time

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, chelsea

from broker_bridge.contract.embeddings import to_array
from deploy.local.sample_video import IDENTITIES, enrollment_photo
from device.vision.alignment import align_faces
from device.vision.capture.sources import Image
from device.vision.detectors.cascade import CascadeDetector
from device.vision.detectors.detector import Detections
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.photos.decoding import decode_photo
from device.vision.photos.errors import PhotoError
from device.vision.photos.face_search import FaceInPhoto, PhotoSearch

ASTRONAUT = np.ascontiguousarray(astronaut()[..., ::-1])
ASTRONAUT_WIDTH = 106
OTHER = decode_photo(enrollment_photo(next(iter(IDENTITIES.values()))))
OTHER_WIDTH = 193
Face = tuple[Image, int]
FIRST, SECOND = (ASTRONAUT, ASTRONAUT_WIDTH), (OTHER, OTHER_WIDTH)


def grey(width: int, height: int) -> Image:
    return np.full((height, width, 3), 110, np.uint8)


def with_face(photo: Image, face: Face, width: int, left: int, top: int) -> Image:
    """Return the photo with a face of this width at a place."""
    pixels, own_width = face
    scale = width / own_width
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)
    area = photo[top : top + small.shape[0], left : left + small.shape[1]]
    area[:] = small[: area.shape[0], : area.shape[1]]
    return photo


@pytest.fixture(scope="module")
def search() -> PhotoSearch:
    return PhotoSearch(CascadeDetector())


def width_of(found: FaceInPhoto) -> int:
    return found.box.width


@pytest.mark.parametrize(
    ("size", "width"),
    [
        ((1280, 720), 100),
        ((1280, 720), 250),
        ((4000, 3000), 100),
        ((4000, 3000), 250),
        ((3000, 4000), 500),
        ((20_000, 200), 110),
        ((300, 4000), 100),
    ],
)
def test_a_face_is_found_at_its_place(search: PhotoSearch, size: tuple[int, int], width: int) -> None:
    """The box is in pixels of the photo, also for a panorama."""
    left, top = (size[0] * 3 // 5, size[1] // 3) if min(size) > 300 else (0, 0)
    if size[0] > 10_000:
        left = 15_000
    found = search.find_face(with_face(grey(*size), SECOND, width, left, top))
    scale = width / OTHER_WIDTH
    middle = (left + (145 + 96) * scale, top + (92 + 96) * scale)
    assert abs(found.box.x + found.box.width / 2 - middle[0]) < width / 5
    assert abs(found.box.y + found.box.height / 2 - middle[1]) < width / 5
    assert 0.75 * width < found.box.width < 1.25 * width


def test_a_small_face_in_a_large_photo_has_the_vector_of_its_portrait() -> None:
    """250 pixels in 12 megapixels, in front of a pattern that looks like eyes."""
    photos = PhotoEmbedder(load_detector(), load_embedder())
    cat = cv2.resize(chelsea()[..., ::-1], (4000, 3000), interpolation=cv2.INTER_CUBIC)
    photo = with_face(np.asarray(cat, np.uint8), FIRST, 250, 1500, 1200)
    small = photos.embed_photo(cv2.imencode(".jpg", photo)[1].tobytes())
    portrait = photos.embed_photo(cv2.imencode(".jpg", ASTRONAUT)[1].tobytes())
    assert to_array(small.vector) @ to_array(portrait.vector) > 0.8
    assert small.quality > 0.5


def test_a_second_face_counts_from_half_the_width(search: PhotoSearch) -> None:
    """Also where the first search saw neither, or the wider one alone."""
    for wide, narrow in ((125, 110), (250, 140)):
        photo = with_face(with_face(grey(2400, 1800), FIRST, wide, 50, 50), SECOND, narrow, 1600, 1100)
        with pytest.raises(PhotoError, match="2 faces were found"):
            search.find_face(photo)
    background = with_face(with_face(grey(2400, 1800), FIRST, 250, 50, 50), SECOND, 100, 1600, 1100)
    assert 210 < width_of(search.find_face(background)) < 290


class CountingDetector:
    """A detector that finds nothing and counts the pixels of its work."""

    name = "counting"

    def __init__(self) -> None:
        self.pixels = 0

    def detect(self, image: Image) -> Detections:
        self.pixels += image.shape[0] * image.shape[1]
        return Detections.empty()


@pytest.mark.parametrize("size", [(640, 480), (4000, 3000), (6000, 4000), (20_000, 500), (1, 1), (1, 4000)])
def test_the_work_is_bounded_by_the_size_of_the_photo(size: tuple[int, int]) -> None:
    """At most twice its pixels are searched, besides the first look."""
    detector = CountingDetector()
    with pytest.raises(PhotoError, match="no face"):
        PhotoSearch(detector).find_face(grey(*size))
    assert detector.pixels <= 3_000_000 + 2 * size[0] * size[1]


@pytest.mark.long
def test_fifty_megapixels_are_searched_in_a_minute(search: PhotoSearch) -> None:
    """The face has 100 pixels; the machine may be busy."""
    photo = with_face(grey(8160, 6120), SECOND, 100, 5000, 4000)
    started = time.monotonic()
    assert 75 < width_of(search.find_face(photo)) < 125
    assert time.monotonic() - started < 60


def test_a_portrait_cut_close_is_aligned_within_its_border():
    """The crop is not black at its edge, and nearly that of the whole portrait."""
    whole = np.ascontiguousarray(astronaut()[..., ::-1])
    tight = np.ascontiguousarray(whole[62:168, 176:272])
    search = PhotoSearch(load_detector())
    faces = []
    for photo in (whole, tight):
        seen = search.find_face(photo)
        faces.append(align_faces(seen.image, seen.found)[0])
    assert (faces[1].max(axis=2) == 0).mean() < 0.01
    middle = np.s_[24:88, 24:88]
    assert np.abs(faces[0][middle].astype(float) - faces[1][middle]).mean() < 12
