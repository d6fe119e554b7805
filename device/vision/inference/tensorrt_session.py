"""Run TensorRT engines.

The only module that imports TensorRT and CUDA; it does so on first use.

Written against TensorRT 10 and 11 (named tensors): https://docs.nvidia.com/deeplearning/tensorrt/latest/
"""

import logging
import threading
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from broker_bridge.common.programs.version import how_to_install

from .batches import check_batch, run_in_chunks, shape_text
from .cuda_memory import Cuda, CudaMemory, TensorBuffer
from .engine_file import EngineRecord, Gpu, explain_load_failure, read_engine
from .session import Float32, ModelError, TensorInfo

_log = logging.getLogger(__name__)

_OLDEST_MAJOR = 10


class TensorRtSession:
    """A session of an engine that `tensorrt_builder` built.

    The engine is for this GPU and this TensorRT.

    A batch larger than the engine's maximum runs in chunks. GPU memory is allocated once, in the
    constructor, and freed by `close` or when the session is garbage collected.

    Raises ModelError with one sentence when the engine or its record is missing or damaged, when the
    engine does not fit this machine, or when TensorRT or the GPU is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        plan, self._record = read_engine(self._path)
        self._trt = import_tensorrt()
        cuda = import_cuda()
        gpu = cuda.gpu()
        self._runtime, self._engine = _deserialize(self._trt, plan, self._path, self._record, gpu)
        if gpu.name != self._record.gpu:
            _log.warning(
                "tensorrt engine runs on another GPU than it was built for; build it again "
                "engine=%s built_for=%r gpu=%r",
                path,
                self._record.gpu,
                gpu.name,
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ModelError(f"TensorRT cannot run {path}: is there enough GPU memory?")
        self._lock = threading.Lock()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._types = {name: self._element_type(name) for name in names}
        self._input, self._outputs = self._tensors(names)
        self._largest = self._largest_input()
        self._memory = CudaMemory(cuda)
        self._finalizer = weakref.finalize(self, self._memory.release)
        try:
            self._buffers = self._allocate()
        except ModelError as error:
            self.close()
            raise ModelError(f"{self._path}: {error}") from error

    @property
    def path(self) -> Path:
        return self._path

    @property
    def sha256(self) -> str:
        return self._record.onnx_sha256

    @property
    def runs_on(self) -> str:
        return "tensorrt"

    @property
    def input(self) -> TensorInfo:
        return self._input

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    def run(self, batch: Float32) -> list[Float32]:
        """Return every output for `batch` (see `Session.run`). Raises ModelError."""
        # One set of context and buffers: the canary and the frames may run in different threads.
        with self._lock:
            if not self._finalizer.alive:
                raise ModelError(f"{self._path} has been closed")
            try:
                check_batch(batch, self._input)
                fixed = self._input.shape[0] is not None
                return run_in_chunks(self._run, batch, at_most=self._largest[0], exactly=fixed)
            except ModelError as error:
                raise ModelError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Free the GPU memory. A second call does nothing."""
        with self._lock:
            self._finalizer()
            self._context = self._engine = self._runtime = None

    def _run(self, rows: Float32) -> list[Any]:
        if not self._context.set_input_shape(self._input.name, rows.shape):
            raise ModelError(f"the engine was not built for an input of {list(rows.shape)}")
        source = self._buffers[self._input.name]
        source.view(rows.shape, rows.dtype)[...] = rows
        self._memory.upload(source, rows.nbytes)
        if not self._context.execute_async_v3(int(self._memory.stream)):
            raise ModelError(f"the engine failed on {list(rows.shape)}")
        answers = []
        for output in self._outputs:
            buffer = self._buffers[output.name]
            answer = buffer.view(self._shape_now(output.name), self._types[output.name])
            self._memory.download(buffer, answer.nbytes)
            answers.append(answer)
        self._memory.synchronize()
        # Copies, since the next chunk is written into the same memory.
        return [answer.copy() for answer in answers]

    def _element_type(self, name: str) -> np.dtype[Any]:
        kind = self._engine.get_tensor_dtype(name)
        known: dict[Any, np.dtype[Any]] = {
            self._trt.float32: np.dtype(np.float32),
            self._trt.float16: np.dtype(np.float16),
        }
        if kind not in known:
            raise ModelError(f"{self._path}: the tensor {name} has elements of {kind}, expected float32")
        return known[kind]

    def _tensors(self, names: list[str]) -> tuple[TensorInfo, tuple[TensorInfo, ...]]:
        inputs: list[TensorInfo] = []
        outputs: list[TensorInfo] = []
        for name in names:
            sizes = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
            is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(TensorInfo(name, sizes))
        if len(inputs) != 1 or self._types[inputs[0].name] != np.float32:
            found = ", ".join(f"{self._types[each.name]}{shape_text(each.shape)}" for each in inputs)
            raise ModelError(f"{self._path} takes {found or 'nothing'}, expected one input of float32")
        return inputs[0], tuple(outputs)

    def _largest_input(self) -> tuple[int, ...]:
        """Return the largest input shape of the profile.

        It is the third of minimum, optimum and maximum.
        """
        fixed = tuple(size for size in self._input.shape if size is not None)
        if len(fixed) == len(self._input.shape):
            return fixed
        return tuple(int(size) for size in self._engine.get_tensor_profile_shape(self._input.name, 0)[2])

    def _allocate(self) -> dict[str, TensorBuffer]:
        """Allocate a buffer of maximum size for each tensor and bind it to the context."""
        if not self._context.set_input_shape(self._input.name, self._largest):
            raise ModelError(f"the engine rejects its own largest input {list(self._largest)}")
        buffers = {}
        for name, kind in self._types.items():
            buffers[name] = self._memory.allocate(int(np.prod(self._shape_now(name))) * kind.itemsize)
            if not self._context.set_tensor_address(name, buffers[name].device):
                raise ModelError(f"the engine rejects the memory for its tensor {name}")
        return buffers

    def _shape_now(self, name: str) -> tuple[int, ...]:
        """Return the shape of tensor `name` for the context's input shape."""
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if min(shape, default=1) < 1:
            raise ModelError(
                f"the size of the tensor {name} is known only after a run, which is not supported"
            )
        return shape


def _deserialize(trt: Any, plan: bytes, path: Path, record: EngineRecord, gpu: Gpu) -> tuple[Any, Any]:
    logger = tensorrt_logger(trt)
    logger.last_error = ""
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelError(explain_load_failure(path, record, trt.__version__, gpu, logger.last_error))
    return runtime, engine


def import_tensorrt() -> Any:
    """Import the package `tensorrt`. Raises ModelError when it is missing or too old."""
    try:
        import tensorrt  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(
            f"TensorRT is not installed for this Python ({error}): on a Jetson it comes with JetPack, "
            "elsewhere with the extra tensorrt-cu12 or tensorrt-cu13, see docs/jetson.md"
        ) from error
    if int(tensorrt.__version__.partition(".")[0]) < _OLDEST_MAJOR:
        raise ModelError(
            f"TensorRT {tensorrt.__version__} is too old: version {_OLDEST_MAJOR} or newer is needed"
        )
    return tensorrt


def import_cuda() -> Cuda:
    """Import the CUDA runtime of cuda-python. Raises ModelError when it is missing."""
    try:
        try:
            from cuda.bindings import runtime  # noqa: PLC0415
        except ImportError:
            # Its module until cuda-python 12.6.
            from cuda import cudart as runtime  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(
            f"cuda-python is not installed ({error}): {how_to_install('device,jetson')}, or with "
            "tensorrt-cu12 or tensorrt-cu13 for jetson where there is no JetPack"
        ) from error
    return Cuda(runtime)


@lru_cache(maxsize=1)
def tensorrt_logger(trt: Any) -> Any:
    """Return the logger that forwards TensorRT's messages to `logging`.

    `last_error` is the last error in one line; callers clear it before they call TensorRT. The process has
    one logger, since TensorRT keeps the first one that it receives.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            text = " ".join(message.split())[:300]
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = text
                _log.error("tensorrt reported an error message=%r", text)
            elif severity == trt.ILogger.WARNING:
                _log.warning("tensorrt reported a warning message=%r", text)

    return Logger()
