"""TensorRT engines on a simulated GPU: memory, batches, engines that do not fit."""

import gc
import os
import threading
from datetime import datetime, timezone

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from device.cli.build_engine import build_engine as build_engine_command
from device.vision.inference.engine_file import record_path
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError
from device.vision.inference.tensorrt_builder import build_engine
from tests.fake_tensorrt import Context, CudaError, Machine
from tests.networks import save_arcface_like, save_channel_means, save_identity, save_nan

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc)


def build(path, *, fp16=False, max_batch=4, workspace_mb=64):
    engine = path.with_suffix(".engine")
    record = build_engine(
        path, engine, fp16=fp16, max_batch=max_batch, workspace_mb=workspace_mb, built_at=NOON
    )
    return engine, record


def pictures(count):
    return np.random.RandomState(1).uniform(-1, 1, (count, 3, 112, 112)).astype(np.float32)


@pytest.fixture
def means(tmp_path):
    return save_channel_means(tmp_path / "m.onnx")


@pytest.fixture
def machine(monkeypatch):
    return Machine().install(monkeypatch)


def test_memory_is_allocated_once_and_freed_once(machine, means):
    """Opening allocates two blocks per tensor, a run none, and closing frees all."""
    session = open_session(build(means)[0])
    assert machine.allocations == 4
    for count in (1, 4, 9):
        session.run(pictures(count))
    assert machine.allocations == 4
    sizes = sorted(len(buffer) for _, buffer in machine.live.values())
    assert sizes == [4 * 3 * 4] * 2 + [4 * 3 * 112 * 112 * 4] * 2
    session.close()
    machine.assert_all_given_back()
    session.close()
    with pytest.raises(ModelError, match="has been closed"):
        session.run(pictures(1))


def test_a_session_without_references_frees_its_memory(machine, means):
    """No call of `close` is needed."""
    session = open_session(build(means)[0])
    session.run(pictures(1))
    assert machine.live
    del session
    gc.collect()
    machine.assert_all_given_back()


def test_a_large_batch_runs_in_chunks(machine, means):
    """The last chunk is smaller if the batch is free."""
    open_session(build(means, max_batch=4)[0]).run(pictures(9))
    assert [shape[0] for shape in machine.launches] == [4, 4, 1]


def test_a_fixed_batch_is_padded(machine, tmp_path):
    """The record's batch applies instead of the requested one."""
    engine, record = build(save_channel_means(tmp_path / "m.onnx", batch=3), max_batch=8)
    assert record.max_batch == 3
    assert len(open_session(engine).run(pictures(4))[0]) == 4
    assert [shape[0] for shape in machine.launches] == [3, 3]


def test_half_precision_outputs_become_float32(monkeypatch, means):
    """Engines may return half precision."""
    Machine(half_outputs=True).install(monkeypatch)
    rows = pictures(5)
    (answer,) = open_session(build(means, fp16=True)[0]).run(rows)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, rows.mean(axis=(2, 3)), atol=1e-3)


def test_threads_may_run_one_session_at_once(machine, means):
    """Each thread gets the outputs of its own rows."""
    session = open_session(build(means)[0])
    batches = [np.full((3, 3, 112, 112), value, np.float32) for value in range(6)]
    answers = [None] * len(batches)
    together = threading.Barrier(len(batches))

    def run(index):
        together.wait(timeout=10)
        for _ in range(30):
            answers[index] = session.run(batches[index])[0]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value, answer in enumerate(answers):
        np.testing.assert_allclose(answer, np.full((3, 3), value), atol=1e-5)


def test_older_cuda_python_is_supported(monkeypatch, means):
    """Its runtime module is `cuda.cudart`."""
    Machine().install(monkeypatch, old_cuda=True)
    assert open_session(build(means)[0]).runs_on == "tensorrt"


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"gpu": "Thor", "capability": (11, 0)},
            r"built for Orin \(compute capability 8\.7\) and this is Thor \(11\.0\)",
        ),
        ({"tensorrt": "10.7.0"}, r"built by TensorRT 10\.3\.0 and this is 10\.7\.0"),
        ({"tensorrt": "8.6.2"}, r"TensorRT 8\.6\.2 is too old: version 10 or newer"),
        ({"driver": False}, r"is the NVIDIA driver there\? \(Failed to dlopen"),
        ({"fails": CudaError.cudaErrorIllegalAddress}, "failed on the GPU: cudaErrorIllegalAddress"),
        ({"memory": 200_000}, r"m\.engine: cudaMalloc\w* failed on the GPU: cudaErrorMemoryAllocation"),
    ],
)
def test_an_engine_that_does_not_fit_this_machine_is_refused(monkeypatch, means, other, sentence):
    """The GPU or TensorRT differs, or driver or memory is missing.

    No memory stays allocated.
    """
    Machine().install(monkeypatch)
    engine, _ = build(means)
    here = Machine(**other).install(monkeypatch)
    with pytest.raises(ModelError, match=sentence) as caught:
        open_session(engine)
    assert "\n" not in str(caught.value)
    here.assert_all_given_back()


def test_another_gpu_of_the_same_kind_is_a_warning(monkeypatch, means, caplog):
    """TensorRT loads the engine, which may be slower."""
    Machine(gpu="Orin").install(monkeypatch)
    engine, _ = build(means)
    Machine(gpu="Orin Nano").install(monkeypatch)
    assert open_session(engine).run(pictures(1))
    assert "built_for='Orin' gpu='Orin Nano'" in caplog.text


def test_missing_tensorrt_or_cuda_python_names_the_source(monkeypatch, means):
    """Most machines have neither."""
    Machine().install(monkeypatch)
    engine, _ = build(means)
    Machine().install(monkeypatch, tensorrt=False)
    with pytest.raises(ModelError, match=r"TensorRT is not installed.*JetPack"):
        open_session(engine)
    Machine().install(monkeypatch, cuda=False)
    with pytest.raises(ModelError, match=r"cuda-python is not installed.*pip install \"\.\[device,jetson\]"):
        open_session(engine)


def test_a_truncated_engine_never_reaches_tensorrt(machine, means):
    """The record has the engine's hash."""
    engine, _ = build(means)
    os.truncate(engine, engine.stat().st_size // 2)
    with pytest.raises(ModelError, match=r"m\.engine \(\d+ bytes\) is truncated"):
        open_session(engine)


def test_a_gpu_that_fails_while_running_raises_a_sentence(machine, means, caplog):
    """Memory that can no longer be freed is logged."""
    session = open_session(build(means)[0])
    machine.fails = CudaError.cudaErrorIllegalAddress
    with pytest.raises(ModelError, match=r"m\.engine: cudaMemcpyAsync failed on the GPU"):
        session.run(pictures(1))
    session.close()
    assert "gpu memory could not be freed" in caplog.text


def test_a_model_that_tensorrt_cannot_build_is_refused(machine, tmp_path, means):
    """The sentence has TensorRT's reason, and no engine is written."""
    (tmp_path / "text.onnx").write_text("this is not a model")
    with pytest.raises(ModelError, match=r"TensorRT cannot read .*text\.onnx: Failed to parse"):
        build(tmp_path / "text.onnx")
    with pytest.raises(
        ModelError, match=r"TensorRT cannot build .*m\.onnx: Could not find any implementation"
    ):
        build(means, workspace_mb=16)
    with pytest.raises(ModelError, match=r"nowhere\.onnx cannot be read"):
        build(tmp_path / "nowhere.onnx")
    assert not list(tmp_path.glob("*.engine*"))


def test_a_model_with_a_free_height_and_width_is_not_built(machine, tmp_path):
    """The engine needs the sizes of its input."""
    with pytest.raises(
        ModelError, match=r"takes \[n, 3, \?, \?\], expected one input with no free dimension but the batch"
    ):
        build(save_channel_means(tmp_path / "m.onnx", sides=("h", "w")))


def test_integer_outputs_of_an_engine_are_refused(machine, tmp_path):
    """ONNX files have the same rule."""
    engine, _ = build(save_identity(tmp_path / "m.onnx", kind=7))
    with pytest.raises(ModelError, match=r"m\.engine: the tensor input has elements of"):
        open_session(engine)


def test_half_precision_without_a_flag_has_advice(monkeypatch, means):
    """TensorRT 11 takes the precision from the ONNX file."""
    Machine(tensorrt="11.0.0", has_fp16_flag=False).install(monkeypatch)
    with pytest.raises(ModelError, match=r"TensorRT 11\.0\.0 has no half precision by flag.*AutoCast"):
        build(means, fp16=True)
    assert open_session(build(means)[0]).runs_on == "tensorrt"


def command(*arguments):
    app = Typer()
    app.command()(build_engine_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_builds_an_engine_and_compares_it_with_the_model(machine, tmp_path):
    """The command prints the record and the similarity to the CPU."""
    path, engine = save_arcface_like(tmp_path / "m.onnx"), tmp_path / "m.engine"
    result = command(path, engine, "--fp16", "--max-batch", 8)
    assert result.exit_code == 0, result.output
    assert "TensorRT 10.3.0, Orin (8.7), half precision, up to 8 at once" in result.output
    assert "lowest cosine of 4 inputs 1.00000" in result.output
    assert record_path(engine).exists()


def test_the_command_names_a_missing_package(monkeypatch, tmp_path):
    """The exit status is 2, without a traceback: most machines have no TensorRT."""
    Machine().install(monkeypatch, tensorrt=False)
    result = command(save_arcface_like(tmp_path / "m.onnx"), tmp_path / "m.engine")
    assert result.exit_code == 2
    assert "TensorRT is not installed" in result.output


def test_the_command_warns_of_an_engine_that_differs(machine, tmp_path):
    """The exit status is 1: the engine was built, but must not be used."""
    result = command(save_nan(tmp_path / "m.onnx"), tmp_path / "m.engine")
    assert result.exit_code == 1
    assert "answers NaN" in result.output
    assert "do not use it" in result.output


def test_an_output_of_unknown_size_is_refused(machine, means, monkeypatch):
    """Its memory cannot be allocated, and allocated memory is freed."""
    engine, _ = build(means)
    real = Context.get_tensor_shape
    monkeypatch.setattr(
        Context,
        "get_tensor_shape",
        lambda context, name: (-1, 3) if name == "output" else real(context, name),
    )
    with pytest.raises(
        ModelError, match=r"m\.engine: the size of the tensor output is known only after a run"
    ):
        open_session(engine)
    assert machine.allocations > 0
    machine.assert_all_given_back()
