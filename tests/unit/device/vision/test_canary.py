"""The canary check: accepted and rejected sessions, and the reasons."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from device.vision.canary import canary_input, check_canary, find_reference, open_reference
from device.vision.inference.engine_file import write_engine
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError, TensorInfo
from tests.networks import save_arcface_like, save_nan, save_network
from tests.unit.device.vision.inference.test_engine_file import PLAN, record

FACE = (None, 3, 112, 112)


class ScriptedSession:
    """A session on a GPU that applies `answer` to the outputs of the reference."""

    path = Path("played.engine")
    runs_on = "tensorrt"

    def __init__(self, reference, answer):
        self.reference, self.answer = reference, answer
        self.sha256, self.input, self.outputs = reference.sha256, reference.input, reference.outputs

    def run(self, batch):
        return [self.answer(each) for each in self.reference.run(batch)]


@pytest.fixture
def reference(tmp_path):
    return open_session(save_arcface_like(tmp_path / "m.onnx"))


def noisy(amount):
    def answer(vectors):
        noise = np.random.RandomState(1).standard_normal(vectors.shape)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors + amount * length * noise / np.sqrt(vectors.shape[1])).astype(np.float32)

    return answer


def one_row(value):
    def answer(vectors):
        spoilt = vectors.copy()
        spoilt[2] = value
        return spoilt

    return answer


def test_the_canary_input_never_changes():
    """Four different smooth pictures in -1..1 have a stored digest."""
    batch = canary_input(FACE)
    assert (batch.shape, batch.dtype) == ((4, 3, 112, 112), np.float32)
    assert -1 <= batch.min() < -0.8 < 0.8 < batch.max() <= 1
    flat = batch.reshape(4, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.5
    assert np.abs(np.diff(batch, axis=3)).mean() < 0.2 * np.abs(batch).mean()
    # Rounded: the last bit may differ between processors.
    assert (
        hashlib.sha256(np.round(batch * 100).astype(np.int8).tobytes()).hexdigest()[:16] == "4607a211ae7ecf21"
    )


@pytest.mark.parametrize("shape", [(None, 3, None, None), (None, 512), ()])
def test_inputs_that_are_no_pictures_of_one_size_are_refused(shape):
    """The canary is for embedders."""
    with pytest.raises(ModelError, match="the canary is for inputs"):
        canary_input(shape)


def test_a_session_on_the_cpu_is_its_own_reference(reference):
    """Its vectors must be finite, not zero and the same twice."""
    result = check_canary(reference, open_reference(reference))
    assert result.passed
    assert result.cosine == pytest.approx(1)
    assert "which is the reference" in result.detail
    assert result.milliseconds > 0


@pytest.mark.parametrize(("amount", "passed"), [(0.0, True), (0.05, True), (0.3, False), (3.0, False)])
def test_vectors_near_those_of_the_cpu_pass_and_others_do_not(reference, amount, passed):
    """Half precision is near; a wrong engine is not."""
    result = check_canary(ScriptedSession(reference, noisy(amount)), reference)
    assert result.passed is passed
    assert result.passed == (result.cosine >= 0.99)
    assert f"tensorrt against the CPU: lowest cosine of 4 inputs {result.cosine:.5f}" in result.detail


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (one_row(np.nan), "answers NaN or infinity"),
        (one_row(np.inf), "answers NaN or infinity"),
        (one_row(0), "answers zeros"),
        (np.zeros_like, "answers zeros"),
        (lambda vectors: vectors[:, :8], r"answers \[\[4, 8\]\], expected \[\[4, 512\]\]"),
        (lambda vectors: -vectors, "lowest cosine of 4 inputs -1.00000"),
        (lambda vectors: vectors[::-1], "lowest cosine"),
        (lambda vectors: vectors[:1].repeat(4, axis=0), "lowest cosine"),
    ],
)
def test_one_invalid_vector_of_four_fails(reference, answer, sentence):
    """The lowest similarity counts, and NaN fails."""
    result = check_canary(ScriptedSession(reference, answer), reference)
    assert not result.passed
    assert np.isfinite(result.cosine)
    assert re.search(sentence, result.detail)


def test_another_model_fails_with_any_output(tmp_path, reference):
    """The engine of an older model may be beside a newer file."""
    other = open_session(save_arcface_like(tmp_path / "other.onnx", seed=8))
    result = check_canary(ScriptedSession(reference, np.copy), other)
    assert not result.passed
    assert "they are not the same model" in result.detail


def test_a_failing_network_fails_the_canary(reference):
    """The check returns a result and does not raise."""

    def fail(_):
        raise ModelError("played.engine: cudaMemcpyAsync failed on the GPU")

    result = check_canary(ScriptedSession(reference, fail), reference)
    assert (result.passed, result.cosine) == (False, 0.0)
    assert "cudaMemcpyAsync failed" in result.detail


def test_a_cpu_session_of_nan_or_zeros_fails(tmp_path):
    """A session with different outputs for one input fails, too."""
    broken = open_session(save_nan(tmp_path / "nan.onnx"))
    assert "answers NaN" in check_canary(broken, broken).detail
    node = helper.make_node("RandomNormalLike", ["input"], ["output"])
    dice = open_session(
        save_network(tmp_path / "dice.onnx", [node], outputs=[("output", ("n", 3, 112, 112))])
    )
    result = check_canary(dice, dice)
    assert not result.passed
    assert "answers the same input differently" in result.detail


def test_a_failing_reference_fails_the_canary(reference):
    """Two wrong outputs may be equal."""
    silent = ScriptedSession(reference, np.zeros_like)
    assert not check_canary(silent, silent).passed


def test_the_canary_measures_the_configured_session(reference):
    """The time is in milliseconds by the given clock."""
    times = iter([5.0, 5.012])
    result = check_canary(ScriptedSession(reference, np.copy), reference, clock=lambda: next(times))
    assert result.milliseconds == pytest.approx(12)


def test_an_onnx_file_is_its_own_reference(tmp_path):
    """A configured reference is for engines."""
    path = tmp_path / "m.onnx"
    assert find_reference(path, None) == path
    assert find_reference(path, tmp_path / "other.onnx") == path


def test_an_engine_is_compared_with_the_file_it_was_built_from(tmp_path):
    """The file is beside the engine by the record's name, or configured."""
    engine = tmp_path / "model.engine"
    write_engine(engine, memoryview(PLAN), record())
    with pytest.raises(ModelError, match=r"model\.onnx is missing, which .*device\.reference_model"):
        find_reference(engine, None)
    beside = save_arcface_like(tmp_path / "model.onnx")
    assert find_reference(engine, None) == beside
    configured = save_arcface_like(tmp_path / "elsewhere.onnx")
    assert find_reference(engine, configured) == configured
    with pytest.raises(ModelError, match=r"gone\.onnx is missing"):
        find_reference(engine, tmp_path / "gone.onnx")


def test_the_reference_of_a_session_on_a_gpu_runs_on_the_cpu(tmp_path, reference):
    """A session on the CPU needs no second session."""
    assert open_reference(reference) is reference
    session = ScriptedSession(reference, np.copy)
    session.path = reference.path
    opened = open_reference(session)
    assert (opened.runs_on, opened.sha256) == ("cpu", session.sha256)
    assert opened.input == TensorInfo("input", FACE)
