"""Allocate memory on the GPU and pinned memory on the host, and free each once.

Imports no CUDA: the caller passes the module `cuda.bindings.runtime`. Its functions return a tuple of an
error code and their results. https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
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
    """The CUDA runtime, with error codes turned into ModelError."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the function `name` and return its result, if any. Raises ModelError."""
        try:
            status, *results = getattr(self.runtime, name)(*arguments)
        except RuntimeError as error:
            # Without a driver, cuda-python raises instead of returning a code.
            raise ModelError(f"CUDA does not run here, is the NVIDIA driver there? ({error})") from error
        if int(status) != 0:
            raise ModelError(f"{name} failed on the GPU: {getattr(status, 'name', int(status))}")
        return results[0] if results else None

    def gpu(self) -> Gpu:
        """Return the GPU that this thread uses."""
        properties = self.call("cudaGetDeviceProperties", self.call("cudaGetDevice"))
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        return Gpu(name.rstrip("\0"), f"{properties.major}.{properties.minor}")


@dataclass(frozen=True)
class TensorBuffer:
    """Memory of one tensor: `device` is a GPU address, `host` uint8[bytes] is pinned."""

    device: int
    host: NDArray[np.uint8]

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the first bytes of `host` as `shape`.

        Raises ModelError if `host` is too small.
        """
        size = math.prod(shape) * dtype.itemsize
        if size > self.host.nbytes:
            raise ModelError(
                f"a tensor of {list(shape)} has {size} bytes, but {self.host.nbytes} are allocated"
            )
        return self.host[:size].view(dtype).reshape(shape)


class CudaMemory:
    """A stream and its buffers. `release` may be called more than once."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._frees: list[tuple[str, Any]] = []
        self.stream = cuda.call("cudaStreamCreate")
        self._frees.append(("cudaStreamDestroy", self.stream))

    def allocate(self, size: int) -> TensorBuffer:
        """Allocate `size` bytes on both sides. Raises ModelError when memory runs out."""
        device = int(self._allocate("cudaMalloc", "cudaFree", size))
        host = int(self._allocate("cudaMallocHost", "cudaFreeHost", size))
        block = (ctypes.c_uint8 * size).from_address(host)
        return TensorBuffer(device, np.ctypeslib.as_array(block))

    def _allocate(self, allocate: str, free: str, size: int) -> Any:
        address = self._cuda.call(allocate, size)
        self._frees.append((free, address))
        return address

    def upload(self, buffer: TensorBuffer, size: int) -> None:
        """Queue a copy of the first `size` bytes to the GPU."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda.call("cudaMemcpyAsync", buffer.device, buffer.host.ctypes.data, size, kind, self.stream)

    def download(self, buffer: TensorBuffer, size: int) -> None:
        """Queue a copy of the first `size` bytes from the GPU."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.call("cudaMemcpyAsync", buffer.host.ctypes.data, buffer.device, size, kind, self.stream)

    def synchronize(self) -> None:
        """Wait until the stream has finished all queued work."""
        self._cuda.call("cudaStreamSynchronize", self.stream)

    def release(self) -> None:
        """Free everything in reverse order of allocation.

        Failures are logged, not raised: after one error a GPU fails every later call with it.
        """
        if self._frees:
            self._attempt("cudaStreamSynchronize", self.stream)
        while self._frees:
            self._attempt(*self._frees.pop())

    def _attempt(self, name: str, argument: Any) -> None:
        try:
            self._cuda.call(name, argument)
        except ModelError as error:
            _log.warning("gpu memory could not be freed error=%r", str(error))
