"""The embedder around a network: preprocessing, refused networks, invalid outputs."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from device.vision.embedder import FaceEmbedder, ModelError, load_embedder
from device.vision.inference.onnx_session import OnnxSession
from device.vision.inference.session import SessionOptions, TensorInfo
from tests.networks import (
    save_arcface_like,
    save_channel_means,
    save_identity,
    save_means_and_peaks,
    save_nan,
    save_network,
)


class Scripted:
    """A session with the outputs of the test."""

    path = Path("scripted.onnx")
    sha256 = "0" * 64
    runs_on = "cpu"
    input = TensorInfo("input", (None, 3, 112, 112))
    outputs = (TensorInfo("output", (None, 3)),)

    def __init__(self, *answers):
        self.answers = [np.zeros((2, 3), np.float32), *answers]

    def run(self, batch):
        return [self.answers.pop(0)]


def faces(*bgr):
    return np.stack([np.broadcast_to(np.array(each, np.uint8), (112, 112, 3)) for each in bgr])


def test_faces_become_rgb_and_vectors_have_unit_length(tmp_path):
    """ArcFace was trained on (x - 127.5) / 127.5 in RGB order."""
    embedder = FaceEmbedder(OnnxSession(save_channel_means(tmp_path / "m.onnx")), "face:means")
    vector = embedder.embed(faces((255, 0, 0)))[0]
    np.testing.assert_allclose(vector, np.array([-1, -1, 1]) / np.sqrt(3), atol=1e-6)
    assert embedder.embed(faces((255, 0, 0))[:0]).shape == (0, 3)


@pytest.mark.parametrize("batch", ["n", 1, 2, 4])
def test_a_batch_equals_its_faces_one_by_one(tmp_path, batch):
    """A network of a fixed batch gives the same vectors, too."""
    embedder = FaceEmbedder(OnnxSession(save_channel_means(tmp_path / "m.onnx", batch=batch)), "face:means")
    several = faces((255, 0, 0), (0, 200, 9), (1, 2, 250))
    together = embedder.embed(several)
    apart = np.concatenate([embedder.embed(several[row : row + 1]) for row in range(3)])
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_nan_from_a_network_becomes_a_row_of_zeros(tmp_path):
    """A zero vector matches no identity; the other rows stay."""
    broken = np.array([[np.nan, 1, 1], [3, 0, 4], [0, 0, 0], [np.inf, 0, 0]], np.float32)
    vectors = FaceEmbedder(Scripted(broken), "face:broken").embed(np.zeros((4, 112, 112, 3), np.uint8))
    np.testing.assert_allclose(vectors, [[0, 0, 0], [0.6, 0, 0.8], [0, 0, 0], [0, 0, 0]], atol=1e-6)
    embedder = FaceEmbedder(OnnxSession(save_nan(tmp_path / "nan.onnx")), "face:nan")
    assert not embedder.embed(faces((1, 2, 3), (200, 100, 0))).any()


def test_numbers_too_large_for_a_length_become_a_row_of_zeros():
    """The square overflows float32 to infinity."""
    vectors = FaceEmbedder(Scripted(np.full((1, 3), 3e38, np.float32)), "face:big").embed(faces((1, 2, 3)))
    assert not vectors.any()


def test_a_flat_picture_has_no_vector():
    """A picture without contrast is similar to no face."""
    assert not load_embedder().embed(faces((90, 90, 90), (0, 0, 0), (255, 255, 255))).any()


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3,), (1, 3, 1)])
def test_a_network_that_changes_the_shape_of_its_answers_is_refused(shape):
    """Its vectors would not be comparable."""
    embedder = FaceEmbedder(Scripted(np.ones(shape, np.float32)), "face:changing")
    with pytest.raises(ModelError, match=r"scripted\.onnx answers .*, expected \[1, 3\] as before"):
        embedder.embed(faces((1, 2, 3)))


def test_the_space_names_the_files_hash_and_dimension(tmp_path):
    """The space's record has both."""
    session = OnnxSession(save_arcface_like(tmp_path / "m.onnx", dimension=256))
    space = FaceEmbedder(session, "face:mine").space
    assert (space.id, space.dimension, space.model_sha256) == ("face:mine", 256, session.sha256)


@pytest.mark.parametrize("sides", [(64, 64), ("h", "w")])
def test_a_network_for_pictures_of_another_or_of_any_size_is_refused(tmp_path, sides):
    """An embedder takes 112x112 faces only."""
    session = OnnxSession(save_channel_means(tmp_path / "m.onnx", sides=sides))
    with pytest.raises(ModelError, match=r"m\.onnx takes .*expected \[n, 3, 112, 112\]"):
        FaceEmbedder(session, "face:m")


def test_a_network_without_one_vector_per_face_is_refused(tmp_path):
    """It returns pictures, two outputs, or one row for the batch."""
    whole_batch = save_network(
        tmp_path / "one.onnx",
        [helper.make_node("ReduceMean", ["input"], ["output"], axes=[0, 2, 3], keepdims=0)],
        outputs=[("output", (3,))],
    )
    for path in (
        save_identity(tmp_path / "same.onnx"),
        save_means_and_peaks(tmp_path / "two.onnx"),
        whole_batch,
    ):
        with pytest.raises(ModelError, match=rf"{path.name} answers .*expected one float32\[2, d\]"):
            FaceEmbedder(OnnxSession(path), "face:m")


def test_declared_output_shapes_are_not_trusted(tmp_path):
    """InsightFace's ArcFace files declare [1, 512] and return [n, 512]."""
    path = save_network(
        tmp_path / "m.onnx",
        [
            helper.make_node("ReduceMean", ["input"], ["output"], axes=[2, 3], keepdims=0),
        ],
        outputs=[("output", (1, 3))],
    )
    vectors = FaceEmbedder(OnnxSession(path), "face:m").embed(faces((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert vectors.shape == (3, 3)


def test_a_configured_model_needs_the_name_of_its_space(tmp_path):
    """The model that comes with the product has its own name only."""
    path = str(save_channel_means(tmp_path / "m.onnx"))
    options = SessionOptions(threads=2)
    assert load_embedder(path, "face:arcface-w600k-r50", options).space.id == "face:arcface-w600k-r50"
    with pytest.raises(ModelError, match=r"m\.json is missing, the record of"):
        load_embedder(path)
    with pytest.raises(ModelError, match="is not a space"):
        load_embedder(path, "ArcFace")
    with pytest.raises(ModelError, match="path of its model"):
        load_embedder(None, "face:arcface-w600k-r50")
