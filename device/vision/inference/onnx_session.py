"""Run networks with ONNX Runtime. The only module that imports it."""

import logging
import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from .batches import check_batch, run_in_chunks
from .model_file import ModelFile
from .session import Float32, ModelError, Provider, SessionOptions, TensorInfo

# From 1.29 on, ONNX Runtime sends telemetry, through files in the home folder, unless this is set before the
# import (https://github.com/microsoft/onnxruntime/pull/27379).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

_log = logging.getLogger(__name__)

_NAMES: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_RUNS_ON = {
    _NAMES["cpu"]: "cpu",
    _NAMES["cuda"]: "cuda",
    _NAMES["tensorrt"]: "tensorrt (ONNX Runtime)",
}
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
# ONNX Runtime's own errors share no base but Exception.
_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)


class OnnxSession:
    """A session of an ONNX file.

    It runs on the first of `options.providers` that works, else on the CPU.

    A network with a fixed batch of k runs k rows at a time. Raises ModelError with one sentence when the
    file is missing, is no model, or has other than one input and floating point outputs.
    """

    def __init__(self, path: str | Path, options: SessionOptions | None = None) -> None:
        options = options or SessionOptions()
        self._path = Path(path)
        file = ModelFile.read(self._path)
        self._session = _start(file, options)
        file.check_unchanged()
        self._sha256 = file.sha256
        self._input = _only_input(self._path, self._session)
        self._outputs = _float_outputs(self._path, self._session)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def sha256(self) -> str:
        return self._sha256

    @property
    def runs_on(self) -> str:
        # The requested providers prove nothing: ONNX Runtime skips a provider that does not start.
        first: str = self._session.get_providers()[0]
        return _RUNS_ON.get(first, first)

    @property
    def input(self) -> TensorInfo:
        return self._input

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    def run(self, batch: Float32) -> list[Float32]:
        """Return every output for `batch` (see `Session.run`). Raises ModelError."""
        try:
            check_batch(batch, self._input)
            fixed = self._input.shape[0]
            return run_in_chunks(self._run, batch, at_most=fixed, exactly=fixed is not None)
        except ModelError as error:
            raise ModelError(f"{self._path}: {error}") from error

    def _run(self, batch: Float32) -> list[Any]:
        try:
            outputs: list[Any] = self._session.run(None, {self._input.name: batch})
        except _ERRORS as error:
            raise ModelError(f"the network failed on {list(batch.shape)}: {_first_line(error)}") from error
        return outputs


def available_providers() -> tuple[Provider, ...]:
    """Return the providers in this build of ONNX Runtime; some may not start here."""
    built = onnxruntime.get_available_providers()
    return tuple(provider for provider, name in _NAMES.items() if name in built)


def _start(file: ModelFile, options: SessionOptions) -> Any:
    """Start a session on the requested providers, the CPU last.

    Providers that are missing or do not start are left out, with one warning that names them.
    """
    built = available_providers()
    # The CPU always starts, so providers after it are never tried.
    requested = list(takewhile(lambda each: each != "cpu", dict.fromkeys(options.providers)))
    reasons = {each: "this ONNX Runtime was built without it" for each in requested if each not in built}
    remaining = [each for each in requested if each not in reasons]
    while True:
        try:
            session = _open(file, remaining, options)
            break
        except _ERRORS as error:
            if not remaining:
                raise ModelError(
                    f"{file.path} is not an ONNX model that can be run here: {_first_line(error)}"
                ) from error
            reasons[remaining.pop(0)] = _first_line(error)
    running = session.get_providers()
    reasons.update(
        {
            each: "it did not start (standard error says why)"
            for each in remaining
            if _NAMES[each] not in running
        }
    )
    if reasons:
        _log.warning(
            "onnx session runs without requested providers model=%s requested=%s runs_on=%r reasons=%r",
            file.path,
            ",".join(options.providers),
            _RUNS_ON.get(running[0], running[0]),
            "; ".join(f"{each}: {reason}" for each, reason in reasons.items()),
        )
    return session


def _open(file: ModelFile, providers: Sequence[Provider], options: SessionOptions) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    # Errors are raised as exceptions; the log would repeat them on standard error.
    settings.log_severity_level = 4
    chosen = [(_NAMES[each], _provider_options(each, options, file)) for each in (*providers, "cpu")]
    # Its own fallback prints to standard output and drops the other providers.
    return onnxruntime.InferenceSession(str(file.path), settings, providers=chosen, enable_fallback=0)


def _provider_options(provider: Provider, options: SessionOptions, file: ModelFile) -> dict[str, str]:
    """Return the options of `provider`. Raises ModelError when the engine cache fails.

    https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    """
    if provider != "tensorrt":
        return {}
    chosen = {"trt_fp16_enable": str(options.fp16)}
    if options.engine_cache is not None:
        # One folder per model: the cache key is the graph alone, so another model with the same graph would
        # get the old weights.
        cache = options.engine_cache / file.sha256[:16]
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"the engine cache {cache} cannot be made: {error.strerror}") from error
        chosen.update(
            trt_engine_cache_enable="True",
            trt_engine_cache_path=str(cache),
            # Keeps the kernel timings, which shortens the next build.
            trt_timing_cache_enable="True",
            trt_timing_cache_path=str(cache),
        )
    return chosen


def _only_input(path: Path, session: Any) -> TensorInfo:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not inputs[0].shape:
        found = ", ".join(f"{each.type}{each.shape}" for each in inputs) or "nothing"
        raise ModelError(f"{path} takes {found}, expected one tensor(float) of a known number of dimensions")
    return _info(inputs[0])


def _float_outputs(path: Path, session: Any) -> tuple[TensorInfo, ...]:
    outputs = session.get_outputs()
    if not all(each.type in _FLOATS for each in outputs):
        found = ", ".join(f"{each.name} {each.type}" for each in outputs)
        raise ModelError(f"{path} answers {found}, expected floating point numbers only")
    return tuple(_info(each) for each in outputs)


def _info(node: Any) -> TensorInfo:
    # A free dimension is a name, or None; some exporters write it as -1 or 0.
    sizes = (size if isinstance(size, int) and size > 0 else None for size in node.shape)
    return TensorInfo(node.name, tuple(sizes))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
