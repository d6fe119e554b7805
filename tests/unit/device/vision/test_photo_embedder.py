"""Enrollment by photo: one face gives a vector, any other photo a code."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, lfw_subset

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import check_vector, to_array
from broker_bridge.contract.errors import ContractError
from deploy.local.sample_video import IDENTITIES, enrollment_photo
from device.vision.detectors.detector import Detections
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.photos.errors import PhotoError


@pytest.fixture(scope="module")
def photos():
    return PhotoEmbedder(load_detector(), load_embedder())


def encode(image, extension=".jpg"):
    return cv2.imencode(extension, image)[1].tobytes()


def portrait():
    return np.ascontiguousarray(astronaut()[..., ::-1])


def refusal(photos, data):
    with pytest.raises(PhotoError) as caught:
        photos.embed_photo(data)
    assert isinstance(caught.value, ContractError)
    return caught.value.code


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_portrait_gives_a_vector_of_the_space(photos, extension):
    """The result has float32[512] of unit length, a quality and the face's box."""
    face = photos.embed_photo(encode(portrait(), extension))
    check_vector(face.vector, 512)
    assert 0 < face.quality <= 1
    assert abs(face.box.x + face.box.width / 2 - 222) < 20
    assert abs(face.box.y + face.box.height / 2 - 115) < 25


@pytest.mark.parametrize("scale", [0.4, 1.0, 4.0])
def test_the_size_of_the_photo_matters_little(photos, scale):
    """A thumbnail and a photo of twelve megapixels match."""
    size = (round(512 * scale), round(512 * scale))
    photo = cv2.resize(portrait(), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    face = photos.embed_photo(encode(photo))
    same = to_array(photos.embed_photo(encode(portrait())).vector) @ to_array(face.vector)
    assert same > 0.8
    assert abs((face.box.x + face.box.width / 2) / scale - 222) < 20


def test_a_tightly_cropped_portrait_is_enrolled(photos):
    """Badge photos end at the ears; the nearest vector is the same face's portrait."""
    wide = np.stack(
        [to_array(photos.embed_photo(enrollment_photo(row)).vector) for row in IDENTITIES.values()]
    )
    for person, row in enumerate(IDENTITIES.values()):
        face = cv2.resize(
            (lfw_subset()[row] * 255).astype(np.uint8), (112, 112), interpolation=cv2.INTER_CUBIC
        )
        similar = wide @ to_array(photos.embed_photo(encode(face)).vector)
        assert similar.argmax() == person
        assert similar.max() > DEFAULT_FACE_SPACE.limits.look_alike


def test_the_sample_portraits_are_distinguished(photos):
    """No two of the demo's identities are similar."""
    vectors = np.stack(
        [to_array(photos.embed_photo(enrollment_photo(row)).vector) for row in IDENTITIES.values()]
    )
    similar = vectors @ vectors.T - np.eye(len(vectors))
    assert similar.max() < 0.65


def test_an_unreadable_picture_is_photo_invalid(photos):
    """The data is text, a GIF, empty, or a JPEG that is damaged after its header."""
    whole = encode(portrait())
    for data in (b"", b"hello", b"GIF89a" + bytes(50), whole[:30], b"\xff\xd8\xff\xe0" + bytes(200)):
        assert refusal(photos, data) == "photo-invalid"


def test_no_face_and_several_faces_have_their_own_codes(photos):
    """The photos are a wall, and two portraits side by side."""
    assert refusal(photos, encode(np.full((480, 640, 3), 120, np.uint8))) == "photo-no-face"
    assert refusal(photos, encode(np.hstack([portrait(), portrait()]))) == "photo-several-faces"


def test_a_picture_of_one_pixel_has_no_face(photos):
    """One pixel is the smallest picture."""
    assert refusal(photos, encode(np.zeros((1, 1, 3), np.uint8), ".png")) == "photo-no-face"


class WithLandmarks:
    """A detector with the landmarks of the astronaut's portrait, turned by `turn`."""

    name = "with-landmarks"
    SEEN = np.array([[202, 104], [243, 101], [226, 126], [208, 147], [246, 144]], np.float32)

    def __init__(self, turn):
        self._turn = turn

    def detect(self, image):
        # The photo is enlarged to a short side of 640, with a border of a quarter of its side.
        upright = self.SEEN @ self._turn[:, :2].T + self._turn[:, 2]
        middle, side = upright.mean(axis=0) * 1.25 + 160, 130.0
        box = np.array([[middle[0] - side / 2, middle[1] - side / 2, side, side]], np.float32)
        return Detections(box, np.ones(1, np.float32), (upright * 1.25 + 160)[None].astype(np.float32))


def test_a_tilted_portrait_is_turned_upright_by_its_landmarks():
    """With landmarks a photo turned by 30 degrees matches the upright one."""
    turn = cv2.getRotationMatrix2D((256, 256), 30, 1.0)
    tilted = cv2.warpAffine(portrait(), turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    upright = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    embedder = load_embedder()
    once = PhotoEmbedder(WithLandmarks(upright), embedder).embed_photo(encode(portrait()))
    again = PhotoEmbedder(WithLandmarks(turn), embedder).embed_photo(encode(tilted))
    assert to_array(once.vector) @ to_array(again.vector) > 0.9
    unaligned = PhotoEmbedder(OnlyBoxes(WithLandmarks(turn)), embedder).embed_photo(encode(tilted))
    assert to_array(once.vector) @ to_array(unaligned.vector) < 0.8


class OnlyBoxes:
    """A detector without its landmarks."""

    name = "only-boxes"

    def __init__(self, detector):
        self._detector = detector

    def detect(self, image):
        found = self._detector.detect(image)
        return Detections(found.boxes, found.scores)
