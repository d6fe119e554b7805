"""What every session promises, whether ONNX Runtime or TensorRT runs the network."""

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
    """Opens a session for an ONNX file, for TensorRT through an engine for up to four rows at once."""
    machine = Machine().install(monkeypatch)

    def open_network(path):
        if request.param == "onnx":
            return open_session(path)
        engine = path.with_suffix(".engine")
        build_engine(path, engine, fp16=False, max_batch=4, workspace_mb=64, built_at=NOON)
        return open_session(engine)

    yield open_network
    # A failure's traceback would keep sessions alive; without one, all is given back by now.
    gc.collect()
    machine.assert_all_given_back()


def pictures(count, seed=1):
    return np.random.RandomState(seed).uniform(-1, 1, (count, 3, 112, 112)).astype(np.float32)


@pytest.mark.parametrize("batch", ["n", 1, 3])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_any_number_of_rows_is_answered_row_by_row(opened, tmp_path, batch, count):
    """For a network with an open batch, and for those that take one or three at once."""
    session = opened(save_channel_means(tmp_path / "m.onnx", batch=batch))
    rows = pictures(count)
    (means,) = session.run(rows)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, rows.mean(axis=(2, 3)), atol=1e-5)


@pytest.mark.parametrize("count", [2, 6])
def test_several_outputs_come_in_their_order(opened, tmp_path, count):
    """Also when the batch was divided."""
    session = opened(save_means_and_peaks(tmp_path / "m.onnx"))
    assert [output.name for output in session.outputs] == ["means", "peaks"]
    rows = pictures(count)
    means, peaks = session.run(rows)
    np.testing.assert_allclose(means, rows.mean(axis=(2, 3)), atol=1e-5)
    np.testing.assert_array_equal(peaks, rows.max(axis=(2, 3)))


def test_answers_stay_what_they_were_when_the_session_runs_again(opened, tmp_path):
    """They are the caller's, not a window on the session's memory."""
    session = opened(save_channel_means(tmp_path / "m.onnx"))
    (first,) = session.run(pictures(2, seed=1))
    kept = first.copy()
    session.run(pictures(2, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_a_session_names_its_model_by_the_onnx_file(opened, tmp_path):
    """An engine too: it is the same model, and its vectors compare."""
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
def test_a_batch_of_another_shape_or_type_is_refused_in_a_sentence(opened, tmp_path, batch):
    """And the session works on."""
    session = opened(save_channel_means(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"m\.\w+: the network takes float32\[n, 3, 112, 112\], this is"):
        session.run(batch)
    assert session.run(pictures(1))[0].shape == (1, 3)


def test_an_embedder_embeds_alike_on_each(opened, tmp_path):
    """The vectors are those of ONNX Runtime on the CPU."""
    path = save_arcface_like(tmp_path / "m.onnx")
    faces = np.random.RandomState(3).randint(0, 256, (6, 112, 112, 3)).astype(np.uint8)
    vectors = FaceEmbedder(opened(path), "face:m").embed(faces)
    expected = FaceEmbedder(open_session(path), "face:m").embed(faces)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_an_answer_that_is_not_a_row_per_row_cannot_be_divided(opened, tmp_path):
    """A detector's thousands of anchors are of one picture; joining two pictures' would mix them up."""
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
