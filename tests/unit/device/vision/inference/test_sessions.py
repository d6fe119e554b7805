"""The common behaviour of ONNX Runtime and TensorRT sessions."""

import gc
import hashlib
from datetime import datetime, timezone

import numpy as np
import pytest
from onnx import helper

from device.vision.embedder import FaceEmbedder
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError
from device.vision.inference.tensorrt_builder import build_engine
from tests.fake_tensorrt import Machine
from tests.networks import save_arcface_like, save_channel_means, save_means_and_peaks, save_network

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc)


@pytest.fixture(params=["onnx", "tensorrt"])
def opened(request, monkeypatch):
    """Return a function that opens an ONNX file.

    For TensorRT it builds an engine of up to four rows first.
    """
    machine = Machine().install(monkeypatch)

    def open_network(path):
        if request.param == "onnx":
            return open_session(path)
        engine = path.with_suffix(".engine")
        build_engine(path, engine, fp16=False, max_batch=4, workspace_mb=64, built_at=NOON)
        return open_session(engine)

    yield open_network
    # A failure's traceback would keep sessions alive; without one, all memory is freed by now.
    gc.collect()
    machine.assert_all_given_back()


def pictures(count, seed=1):
    return np.random.RandomState(seed).uniform(-1, 1, (count, 3, 112, 112)).astype(np.float32)


@pytest.mark.parametrize("batch", ["n", 1, 3])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_any_number_of_rows_is_answered_row_by_row(opened, tmp_path, batch, count):
    """The batch of the network is free, or fixed to one or three rows."""
    session = opened(save_channel_means(tmp_path / "m.onnx", batch=batch))
    rows = pictures(count)
    (means,) = session.run(rows)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, rows.mean(axis=(2, 3)), atol=1e-5)


@pytest.mark.parametrize("count", [2, 6])
def test_several_outputs_keep_their_order(opened, tmp_path, count):
    """Outputs keep their order in a divided batch, too."""
    session = opened(save_means_and_peaks(tmp_path / "m.onnx"))
    assert [output.name for output in session.outputs] == ["means", "peaks"]
    rows = pictures(count)
    means, peaks = session.run(rows)
    np.testing.assert_allclose(means, rows.mean(axis=(2, 3)), atol=1e-5)
    np.testing.assert_array_equal(peaks, rows.max(axis=(2, 3)))


def test_outputs_do_not_change_when_the_session_runs_again(opened, tmp_path):
    """They are copies of the session's memory."""
    session = opened(save_channel_means(tmp_path / "m.onnx"))
    (first,) = session.run(pictures(2, seed=1))
    kept = first.copy()
    session.run(pictures(2, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_a_session_has_the_hash_of_its_onnx_file(opened, tmp_path):
    """An engine of the same model has comparable vectors."""
    path = save_arcface_like(tmp_path / "m.onnx")
    session = opened(path)
    assert session.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert session.input.name == "input"
    assert session.input.shape == (None, 3, 112, 112)
    assert session.outputs[0].shape == (None, 512)
    assert session.path.parent == tmp_path


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 64, 64), np.float32),
        np.zeros((1, 3, 112), np.float32),
        np.zeros((0, 3, 112, 112), np.float32),
        np.zeros((1, 3, 112, 112), np.float64),
        np.zeros((1, 3, 112, 112), np.uint8),
    ],
)
def test_a_batch_of_another_shape_or_type_is_refused(opened, tmp_path, batch):
    """The session works afterwards."""
    session = opened(save_channel_means(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"m\.\w+: the network takes float32\[n, 3, 112, 112\], this is"):
        session.run(batch)
    assert session.run(pictures(1))[0].shape == (1, 3)


def test_an_embedder_has_equal_vectors_on_each(opened, tmp_path):
    """The vectors equal those of ONNX Runtime on the CPU."""
    path = save_arcface_like(tmp_path / "m.onnx")
    faces = np.random.RandomState(3).randint(0, 256, (6, 112, 112, 3)).astype(np.uint8)
    vectors = FaceEmbedder(opened(path), "face:m").embed(faces)
    expected = FaceEmbedder(open_session(path), "face:m").embed(faces)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_an_output_without_a_row_per_row_is_not_divided(opened, tmp_path):
    """Joining the anchors of two pictures would mix them up."""
    path = save_network(
        tmp_path / "m.onnx",
        [helper.make_node("Reshape", ["input", "shape"], ["output"])],
        input_shape=(1, 3, 8, 8),
        outputs=[("output", (64, 3))],
        weights={"shape": np.array([64, 3], np.int64)},
    )
    session = opened(path)
    assert session.run(np.zeros((1, 3, 8, 8), np.float32))[0].shape == (64, 3)
    with pytest.raises(ModelError, match=r"m\.\w+: the network answers \[64, 3\] to 1 rows"):
        session.run(np.zeros((2, 3, 8, 8), np.float32))
