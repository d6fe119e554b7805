"""ONNX Runtime sessions: providers, warnings about missing ones, rejected files."""

import logging
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from device.vision.inference.onnx_session import OnnxSession, available_providers
from device.vision.inference.session import ModelError, SessionOptions
from tests.networks import save_arcface_like, save_channel_means, save_identity, save_network

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


class GpuBuild:
    """ONNX Runtime of a GPU build.

    Providers in `broken` raise at the start, those in `silent` are left out silently.
    """

    def __init__(self, monkeypatch, *, broken=(), silent=()):
        self.requested = []
        self.broken, self.silent = broken, silent
        self.real = onnxruntime.InferenceSession
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.start)

    def start(self, path, settings, providers, enable_fallback):
        assert enable_fallback == 0
        self.requested.append(dict(providers))
        for name, _ in providers:
            if name in self.broken:
                raise RuntimeError(f"CUDA failure 35 in {name}\nmore lines")
        session = self.real(path, settings, providers=[CPU], enable_fallback=0)
        running = [name for name, _ in providers if name not in self.silent]
        session.get_providers = lambda: running
        return session


def test_without_options_the_cpu_runs_and_nothing_is_logged(tmp_path, caplog, capfd):
    """ONNX Runtime's own log is silent, too."""
    session = OnnxSession(save_channel_means(tmp_path / "m.onnx"))
    assert session.runs_on == "cpu"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_providers_have_the_names_of_the_configuration(monkeypatch):
    """Providers that the product does not support are left out."""
    assert "cpu" in available_providers()
    GpuBuild(monkeypatch)
    assert set(available_providers()) == {"tensorrt", "cuda", "cpu"}


def test_missing_providers_are_left_out_with_one_warning(tmp_path, caplog):
    """The warning has the requested providers, the running one, and the reasons."""
    path = save_channel_means(tmp_path / "m.onnx")
    session = OnnxSession(path, SessionOptions(providers=("tensorrt", "cuda", "cpu")))
    assert session.runs_on == "cpu"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    warning = caplog.messages[0]
    assert f"model={path} requested=tensorrt,cuda,cpu runs_on='cpu' reasons=" in warning
    assert warning.count("built without it") == 2


def test_providers_keep_the_requested_order_with_the_cpu_last(tmp_path, monkeypatch, caplog):
    """The TensorRT provider gets its precision and its cache."""
    build = GpuBuild(monkeypatch)
    path = save_channel_means(tmp_path / "m.onnx")
    options = SessionOptions(providers=("tensorrt", "cuda"), engine_cache=tmp_path / "cache", fp16=True)
    session = OnnxSession(path, options)
    assert session.runs_on == "tensorrt (ONNX Runtime)"
    (requested,) = build.requested
    assert list(requested) == [TENSORRT, CUDA, CPU]
    assert requested[TENSORRT]["trt_fp16_enable"] == "True"
    assert requested[TENSORRT]["trt_engine_cache_enable"] == "True"
    assert not caplog.records


def test_models_do_not_share_cached_engines(tmp_path, monkeypatch):
    """ONNX Runtime names a cached engine by its graph, without the weights."""
    build = GpuBuild(monkeypatch)
    options = SessionOptions(providers=("tensorrt",), engine_cache=tmp_path / "cache")
    for seed in (1, 2):
        OnnxSession(save_arcface_like(tmp_path / f"{seed}.onnx", seed=seed), options)
    folders = {requested[TENSORRT]["trt_engine_cache_path"] for requested in build.requested}
    assert len(folders) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_providers_after_the_cpu_are_never_tried(tmp_path, monkeypatch, caplog):
    """The CPU always starts."""
    build = GpuBuild(monkeypatch)
    session = OnnxSession(save_channel_means(tmp_path / "m.onnx"), SessionOptions(providers=("cpu", "cuda")))
    assert (session.runs_on, list(build.requested[0])) == ("cpu", [CPU])
    assert not caplog.records


@pytest.mark.parametrize(
    ("broken", "silent", "runs_on"),
    [
        ([TENSORRT], [], "cuda"),
        ([TENSORRT, CUDA], [], "cpu"),
        ([], [TENSORRT], "cuda"),
        ([], [TENSORRT, CUDA], "cpu"),
        ([TENSORRT], [CUDA], "cpu"),
    ],
)
def test_a_provider_that_does_not_start_is_replaced_by_the_next(
    tmp_path, monkeypatch, caplog, broken, silent, runs_on
):
    """`runs_on` is the running provider, and one warning has the failure.

    ONNX Runtime raises, or continues silently.
    """
    GpuBuild(monkeypatch, broken=broken, silent=silent)
    path = save_channel_means(tmp_path / "m.onnx")
    session = OnnxSession(path, SessionOptions(providers=("tensorrt", "cuda", "cpu")))
    assert session.runs_on == runs_on
    (warning,) = caplog.messages
    assert f"runs_on={runs_on!r} reasons=" in warning
    assert "tensorrt: " in warning
    assert "\n" not in warning
    assert session.run(np.zeros((1, 3, 112, 112), np.float32))[0].shape == (1, 3)


def test_an_impossible_engine_cache_is_refused(tmp_path, monkeypatch):
    """A file has the name of the folder."""
    GpuBuild(monkeypatch)
    (tmp_path / "cache").write_text("")
    options = SessionOptions(providers=("tensorrt",), engine_cache=tmp_path / "cache")
    with pytest.raises(ModelError, match=r"the engine cache .* cannot be made"):
        OnnxSession(save_channel_means(tmp_path / "m.onnx"), options)


def test_an_unusable_file_is_refused(tmp_path, capfd):
    """The file is missing, truncated, foreign or empty.

    Each sentence names the file, and nothing is printed.
    """
    whole = save_arcface_like(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("this is not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("missing.onnx", "half.onnx", "text.onnx", "empty.onnx", "folder.onnx"):
        with pytest.raises(ModelError, match=name) as caught:
            OnnxSession(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "kind", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64]
)
def test_an_input_of_other_numbers_than_float32_is_refused(tmp_path, kind):
    """A session's input is float32."""
    path = save_identity(tmp_path / "m.onnx", kind=kind)
    with pytest.raises(ModelError, match=r"m\.onnx takes tensor\(\w+\).*expected one tensor\(float\)"):
        OnnxSession(path)


def test_other_float_outputs_become_float32_and_integers_are_refused(tmp_path):
    """Integers are classes or counts, which no part of the product reads."""
    for kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        node = onnx.helper.make_node("Cast", ["input"], ["output"], to=kind)
        path = save_network(
            tmp_path / "m.onnx", [node], outputs=[("output", ("n", 3, 112, 112))], output_type=kind
        )
        assert OnnxSession(path).run(np.ones((1, 3, 112, 112), np.float32))[0].dtype == np.float32
    node = onnx.helper.make_node("Cast", ["input"], ["output"], to=TensorProto.INT64)
    path = save_network(
        tmp_path / "m.onnx", [node], outputs=[("output", ("n", 3, 112, 112))], output_type=TensorProto.INT64
    )
    with pytest.raises(ModelError, match=r"m\.onnx answers output tensor\(int64\)"):
        OnnxSession(path)


def test_two_inputs_are_refused(tmp_path):
    """A session has one input."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "b"], ["c"])],
        "sum",
        [value("a", TensorProto.FLOAT, ["n", 3]), value("b", TensorProto.FLOAT, ["n", 3])],
        [value("c", TensorProto.FLOAT, ["n", 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx takes .*expected one"):
        OnnxSession(tmp_path / "m.onnx")


def test_a_free_height_and_width_take_pictures_of_any_size(tmp_path):
    """Detectors have such inputs."""
    session = OnnxSession(save_channel_means(tmp_path / "m.onnx", sides=("h", "w")))
    assert session.input.shape == (None, 3, None, None)
    for sides in ((32, 48), (7, 5)):
        assert session.run(np.ones((2, 3, *sides), np.float32))[0].tolist() == [[1, 1, 1]] * 2


def test_a_network_that_fails_on_a_batch_raises_a_sentence(tmp_path, capfd):
    """The sentence names the file; here a pooling window is larger than the picture."""
    node = onnx.helper.make_node("MaxPool", ["input"], ["output"], kernel_shape=[64, 64])
    path = save_network(
        tmp_path / "m.onnx", [node], input_shape=("n", 3, "h", "w"), outputs=[("output", ("n", 3, "a", "b"))]
    )
    session = OnnxSession(path)
    with pytest.raises(
        ModelError, match=rf"{re.escape(str(path))}: the network failed on \[1, 3, 8, 8\]"
    ) as caught:
        session.run(np.zeros((1, 3, 8, 8), np.float32))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_weights_in_a_file_beside_the_model_are_found(tmp_path):
    """ONNX stores large weights in such a file."""
    whole = save_arcface_like(tmp_path / "whole.onnx")
    batch = np.random.RandomState(1).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32)
    expected = OnnxSession(whole).run(batch)[0]
    onnx.save_model(
        onnx.load(whole), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    np.testing.assert_array_equal(OnnxSession(tmp_path / "m.onnx").run(batch)[0], expected)


def test_a_file_that_is_replaced_while_it_is_loaded_is_refused(tmp_path, monkeypatch):
    """Otherwise the hash would not be that of the running model."""
    path = save_arcface_like(tmp_path / "m.onnx", seed=1)
    other = save_arcface_like(tmp_path / "other.onnx", seed=2)
    real = onnxruntime.InferenceSession

    def replaced_first(*arguments, **options):
        shutil.move(other, path)
        return real(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", replaced_first)
    with pytest.raises(ModelError, match=r"m\.onnx was changed while it was loaded"):
        OnnxSession(path)


def test_no_telemetry_is_stored(tmp_path):
    """ONNX Runtime would store an identifier and events in the home folder."""
    model = save_arcface_like(tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = f"from device.vision.inference.onnx_session import OnnxSession; OnnxSession({str(model)!r})"
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(home.rglob("*")) == []
