"""Define the protocol of inference sessions and its options.

ONNX Runtime and TensorRT have such sessions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Provider = Literal["cpu", "cuda", "tensorrt"]

ENGINE_SUFFIXES = frozenset({".engine", ".plan"})


class ModelError(Exception):
    """A model file is missing or unfit; the message names the file and the reason."""


@dataclass(frozen=True)
class TensorInfo:
    """Name and shape of an input or output; None is a free dimension."""

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class SessionOptions:
    """Options of a session.

    `providers` are tried in order, for ONNX files only. `engine_cache` is the folder for engines that ONNX
    Runtime's TensorRT provider builds.
    """

    providers: tuple[Provider, ...] = ("cpu",)
    threads: int = 1
    engine_cache: Path | None = None
    fp16: bool = False


class Session(Protocol):
    """A network with one input of float32 and one or more outputs of float32.

    `sha256` is the hash of the ONNX file, also for an engine that was built from it; it identifies the model.
    `runs_on` is for display: `cpu`, `cuda`, `tensorrt (ONNX Runtime)` or `tensorrt`.
    """

    @property
    def path(self) -> Path: ...

    @property
    def sha256(self) -> str: ...

    @property
    def runs_on(self) -> str: ...

    @property
    def input(self) -> TensorInfo: ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...

    def run(self, batch: Float32) -> list[Float32]:
        """Return every output for `batch`, float32[n, ...] in the shape of `input`.

        A network that takes fewer rows at once runs several times. Raises ModelError when it fails.
        """
        ...
