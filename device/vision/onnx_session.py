"""Runs an embedding network with ONNX Runtime. The only file that imports it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from .alignment import FACE_SIZE
from .detector import Float32
from .embedder import ModelError

_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)


class OnnxSession:
    """A network with one input float32[n, 3, 112, 112] and one output float32[n, d].

    `sha256` is the hex digest of the file, `dimension` is d. Raises ModelError when the file is missing, is
    not a model, or has another shape. A network with a fixed batch of one is run face by face.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",), threads: int = 1
    ) -> None:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ModelError(f"the model {path} cannot be read: {error.strerror}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except _LOAD_ERRORS as error:
            reason = str(error).splitlines()[0][:200]
            raise ModelError(f"{path} is not an ONNX model that can be run here: {reason}") from error
        self._check_input(path)
        probe = self._session.run(None, {self._input: np.zeros((1, 3, FACE_SIZE, FACE_SIZE), np.float32)})[0]
        if probe.ndim != 2 or probe.shape[0] != 1 or probe.dtype != np.float32:
            raise ModelError(f"{path} answers {probe.dtype}{list(probe.shape)}, expected float32[1, d]")
        self.dimension = int(probe.shape[1])

    def _check_input(self, path: str | Path) -> None:
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else None
        if shape is None or shape[1:] != [3, FACE_SIZE, FACE_SIZE] or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{each.type}{each.shape}" for each in inputs)
            raise ModelError(f"{path} takes {found}, expected one tensor(float)[n, 3, 112, 112]")
        self._input: str = inputs[0].name
        self._one_by_one = shape[0] == 1

    def run(self, batch: Float32) -> Float32:
        """The network's raw output float32[n, d] for `batch` float32[n, 3, 112, 112]."""
        parts = [batch[row : row + 1] for row in range(len(batch))] if self._one_by_one else [batch]
        outputs = [self._session.run(None, {self._input: part})[0] for part in parts]
        return np.concatenate(outputs).astype(np.float32, copy=False)
