"""What runs a network: one protocol for ONNX Runtime and TensorRT, and how one is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Provider = Literal["cpu", "cuda", "tensorrt"]

ENGINE_SUFFIXES = frozenset({".engine", ".plan"})


class ModelError(Exception):
    """A model file that is missing or is not what it should be; one sentence that says which and how."""


@dataclass(frozen=True)
class TensorInfo:
    """Name and shape of an input or output; None stands for a dimension that is free."""

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class SessionOptions:
    """How a network is run. `providers` are tried in order, for ONNX files only; `engine_cache` is where
    ONNX Runtime's TensorRT provider keeps the engines that it builds."""

    providers: tuple[Provider, ...] = ("cpu",)
    threads: int = 1
    engine_cache: Path | None = None
    fp16: bool = False


class Session(Protocol):
    """A network with one input of float32 and one or more outputs of float32.

    `sha256` is that of the ONNX file, also for an engine that was built from it: it names the model.
    `runs_on` says what runs it, for people: `cpu`, `cuda`, `tensorrt (ONNX Runtime)`, `tensorrt`.
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
        """Every output for `batch`, float32[n, ...] in the shape of `input`. A network that takes fewer at
        once is run several times. Raises ModelError when the network fails on it."""
        ...
