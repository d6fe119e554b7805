"""Networks and their preprocessing: what is refused, and what a broken answer becomes."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device.vision.embedder import FaceEmbedder, ModelError, load_embedder
from device.vision.onnx_session import OnnxSession


def save_model(path, *, batch="n", side=112, nodes=None, output=("n", 3)):
    """A network that answers the mean of each channel, or what `nodes` say."""
    nodes = nodes or [helper.make_node("ReduceMean", ["input"], ["output"], axes=[2, 3], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(output))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def faces(*bgr):
    return np.stack([np.broadcast_to(np.array(each, np.uint8), (112, 112, 3)) for each in bgr])


def test_faces_are_turned_to_rgb_scaled_and_answered_in_unit_length(tmp_path):
    """(x - 127.5) / 127.5 in RGB order is what ArcFace was trained on."""
    embedder = FaceEmbedder(OnnxSession(save_model(tmp_path / "m.onnx")), "face:means")
    vector = embedder.embed(faces((255, 0, 0)))[0]
    np.testing.assert_allclose(vector, np.array([-1, -1, 1]) / np.sqrt(3), atol=1e-6)
    assert embedder.embed(faces((255, 0, 0))[:0]).shape == (0, 3)


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_batch_equals_its_faces_one_by_one(tmp_path, batch):
    """Also for a network that takes one face at a time."""
    session = OnnxSession(save_model(tmp_path / "m.onnx", batch=batch, output=(batch, 3)))
    embedder = FaceEmbedder(session, "face:means")
    several = faces((255, 0, 0), (0, 200, 9), (1, 2, 250))
    together = embedder.embed(several)
    apart = np.concatenate([embedder.embed(several[row : row + 1]) for row in range(3)])
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_nan_from_a_network_becomes_a_vector_that_matches_nobody(tmp_path):
    """Rows of zeros; the neighbours in the batch stay whole."""

    class Broken:
        sha256, dimension = "0" * 64, 3

        def run(self, batch):
            return np.array([[np.nan, 1, 1], [3, 0, 4], [0, 0, 0], [np.inf, 0, 0]], np.float32)

    vectors = FaceEmbedder(Broken(), "face:broken").embed(np.zeros((4, 112, 112, 3), np.uint8))
    np.testing.assert_allclose(vectors, [[0, 0, 0], [0.6, 0, 0.8], [0, 0, 0], [0, 0, 0]], atol=1e-6)


def test_a_flat_picture_has_no_vector():
    """Nothing is similar to a wall."""
    assert not load_embedder().embed(faces((90, 90, 90), (0, 0, 0), (255, 255, 255))).any()


def test_the_session_knows_the_files_hash_and_dimension(tmp_path):
    """The space's record is made of them."""
    path = save_model(tmp_path / "m.onnx")
    session = OnnxSession(path)
    assert session.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert session.dimension == 3


def test_a_missing_truncated_or_foreign_file_is_refused_in_a_sentence(tmp_path):
    """Each names the file."""
    whole = save_model(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("this is not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("missing.onnx", "half.onnx", "text.onnx", "empty.onnx"):
        with pytest.raises(ModelError, match=name):
            OnnxSession(tmp_path / name)


def test_a_network_of_another_shape_is_refused(tmp_path):
    """Another input size, or an output that is no vector per face."""
    with pytest.raises(ModelError, match="n, 3, 112, 112"):
        OnnxSession(save_model(tmp_path / "small.onnx", side=64))
    same = [helper.make_node("Identity", ["input"], ["output"])]
    with pytest.raises(ModelError, match=r"float32\[1, d\]"):
        OnnxSession(save_model(tmp_path / "same.onnx", nodes=same, output=("n", 3, 112, 112)))


def test_a_model_of_ones_own_needs_the_name_of_its_space(tmp_path):
    """And the embedded one has its own name only."""
    path = str(save_model(tmp_path / "m.onnx"))
    assert load_embedder(path, "face:arcface-w600k-r50").space.id == "face:arcface-w600k-r50"
    with pytest.raises(ModelError, match="name of its space"):
        load_embedder(path)
    with pytest.raises(ModelError, match="is not a space"):
        load_embedder(path, "ArcFace")
    with pytest.raises(ModelError, match="path of its model"):
        load_embedder(None, "face:arcface-w600k-r50")
