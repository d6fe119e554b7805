"""Hold the ONNX file of dlib's face network to its record and its source."""

import hashlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from deploy.models import resnet29
from device.vision.embedder import FaceEmbedder
from device.vision.inference.loader import open_session
from device.vision.model_record import read_record

MODEL = Path(resnet29.__file__).parents[2] / "device/vision/models/resnet29-512.onnx"


@pytest.fixture(scope="module")
def embedder():
    return FaceEmbedder(open_session(MODEL), "face:resnet29-512")


def test_the_file_is_that_of_its_record_and_small():
    """The record names the hash of the file, which has at most 12 MB."""
    record = read_record(MODEL)
    assert record is not None
    assert record.model_sha256 == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert MODEL.stat().st_size <= 12_000_000


def test_a_batch_answers_as_single_faces_do_in_unit_length(embedder):
    """A face's vector does not depend on its neighbours in a batch."""
    faces = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    batch = embedder.embed(faces)
    single = np.concatenate([embedder.embed(faces[row : row + 1]) for row in range(3)])
    assert batch.shape == (3, 512)
    np.testing.assert_allclose(batch, single, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("grey", [0, 1, 127, 128, 255])
def test_a_flat_face_has_no_vector(embedder, grey):
    """A picture without contrast is no face, whatever its brightness."""
    assert not embedder.embed(np.full((1, 112, 112, 3), grey, np.uint8)).any()


def test_the_matrix_to_512_numbers_keeps_each_cosine():
    """Its rows are orthonormal."""
    matrix = resnet29.spread_matrix().astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(128), atol=1e-6)


def test_the_package_gives_the_same_bytes():
    """The committed file needs no trust."""
    try:
        source = resnet29.source_file()
    except PackageNotFoundError:
        pytest.skip('needs pip install ".[models]"')
    assert resnet29.build_model(source) == MODEL.read_bytes()
