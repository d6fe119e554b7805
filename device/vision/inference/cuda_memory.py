"""Memory on the GPU and pinned memory on the host, allocated once, each freed once.

Imports no CUDA: it is handed the module `cuda.bindings.runtime`, whose functions answer a tuple of an error
code and their results. https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
"""

import ctypes
import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine_file import Gpu
from .session import ModelError

_log = logging.getLogger(__name__)


class Cuda:
    """The CUDA runtime with errors as ModelError."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of the function `name`, None if it has none. Raises ModelError."""
        try:
            status, *results = getattr(self.runtime, name)(*arguments)
        except RuntimeError as error:
            # Where there is no driver, cuda-python does not answer a code but raises.
            raise ModelError(f"CUDA does not run here, is the NVIDIA driver there? ({error})") from error
        if int(status) != 0:
            raise ModelError(f"{name} failed on the GPU: {getattr(status, 'name', int(status))}")
        return results[0] if results else None

    def gpu(self) -> Gpu:
        """The GPU that this thread uses."""
        properties = self.call("cudaGetDeviceProperties", self.call("cudaGetDevice"))
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        return Gpu(name.rstrip("\0"), f"{properties.major}.{properties.minor}")


@dataclass(frozen=True)
class TensorBuffer:
    """One tensor's place: `device` is its address on the GPU, `host` uint8[bytes] is pinned memory."""

    device: int
    host: NDArray[np.uint8]

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The first bytes of `host` as an array of `shape`. Raises ModelError when they are too few."""
        size = math.prod(shape) * dtype.itemsize
        if size > self.host.nbytes:
            raise ModelError(
                f"a tensor of {list(shape)} has {size} bytes, {self.host.nbytes} were made ready"
            )
        return self.host[:size].view(dtype).reshape(shape)


class CudaMemory:
    """A stream and the buffers that are copied on it. `release` may be called more than once."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._frees: list[tuple[str, Any]] = []
        self.stream = cuda.call("cudaStreamCreate")
        self._frees.append(("cudaStreamDestroy", self.stream))

    def allocate(self, size: int) -> TensorBuffer:
        """A buffer of `size` bytes on both sides. Raises ModelError when memory runs out."""
        device = int(self._allocate("cudaMalloc", "cudaFree", size))
        host = int(self._allocate("cudaMallocHost", "cudaFreeHost", size))
        block = (ctypes.c_uint8 * size).from_address(host)
        return TensorBuffer(device, np.ctypeslib.as_array(block))

    def _allocate(self, allocate: str, free: str, size: int) -> Any:
        address = self._cuda.call(allocate, size)
        self._frees.append((free, address))
        return address

    def upload(self, buffer: TensorBuffer, size: int) -> None:
        """Copy the first `size` bytes to the GPU, in the stream's order."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda.call("cudaMemcpyAsync", buffer.device, buffer.host.ctypes.data, size, kind, self.stream)

    def download(self, buffer: TensorBuffer, size: int) -> None:
        """Copy the first `size` bytes from the GPU, in the stream's order."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.call("cudaMemcpyAsync", buffer.host.ctypes.data, buffer.device, size, kind, self.stream)

    def synchronize(self) -> None:
        """Wait until the stream has done all that it was given."""
        self._cuda.call("cudaStreamSynchronize", self.stream)

    def release(self) -> None:
        """Free everything, last made first. What cannot be freed is logged: a GPU that has failed once
        answers every later call with that failure."""
        if self._frees:
            self._attempt("cudaStreamSynchronize", self.stream)
        while self._frees:
            self._attempt(*self._frees.pop())

    def _attempt(self, name: str, argument: Any) -> None:
        try:
            self._cuda.call(name, argument)
        except ModelError as error:
            _log.warning("GPU memory was not given back: %s", error)
