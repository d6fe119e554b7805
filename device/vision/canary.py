"""Check that the configured session agrees with the CPU on fixed inputs.

Half precision, a wrong engine or a faulty driver show as vectors that point elsewhere. Such a session
recognises the wrong identities, so its model is quarantined.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .inference.batches import shape_text
from .inference.engine_file import read_record
from .inference.loader import open_session
from .inference.session import ENGINE_SUFFIXES, Float32, ModelError, Session, SessionOptions

MIN_COSINE = 0.99
INPUTS = 4
_SEED = 112
_COARSE = 7
# Of two runs of one CPU session: the same sums in another order, nothing else.
_SAME = 0.99999


@dataclass(frozen=True)
class CanaryResult:
    """Result of the check.

    `cosine` is the lowest over all inputs and outputs (-1..1; 0 without any), `detail` a sentence,
    `milliseconds` the time of the configured session for the four inputs.
    """

    cosine: float
    passed: bool
    detail: str
    milliseconds: float


def canary_input(shape: tuple[int | None, ...]) -> Float32:
    """Return the fixed inputs for an input of `shape`.

    The result is float32[4, channels, height, width]: smooth random fields in -1..1, like preprocessed
    faces. It is the same in every run. Raises ModelError for other shapes and for free dimensions.
    """
    sizes = [size for size in shape[1:] if size is not None]
    if len(shape) != 4 or len(sizes) != 3:
        raise ModelError(
            f"the canary is for inputs [n, channels, height, width], this is {shape_text(shape)}"
        )
    channels, height, width = sizes
    # RandomState's stream is frozen by numpy's policy, the newer generators' is not.
    random = np.random.RandomState(_SEED)
    shared = random.uniform(-1, 1, (INPUTS, 1, _COARSE, _COARSE))
    tint = random.uniform(-0.25, 0.25, (INPUTS, channels, _COARSE, _COARSE))
    fields = _stretch(height) @ (shared + tint) @ _stretch(width).T
    grain = random.normal(0, 0.03, (INPUTS, channels, height, width))
    batch: Float32 = np.clip(fields + grain, -1, 1).astype(np.float32)
    return batch


def _stretch(size: int) -> NDArray[np.float64]:
    """Return float64[size, 7], which interpolates 7 values to `size` linearly."""
    at = np.linspace(0, _COARSE - 1, size)
    weights: NDArray[np.float64] = np.clip(1 - np.abs(at[:, None] - np.arange(_COARSE)), 0, None)
    return weights


def find_reference(model: Path, reference_model: Path | None) -> Path:
    """Return the ONNX file to compare `model` with.

    That is `model` itself, or for an engine `reference_model` or else the file in its record, beside the
    engine. Raises ModelError when it is missing.
    """
    if model.suffix.lower() not in ENGINE_SUFFIXES:
        return model
    reference = reference_model or model.with_name(read_record(model).onnx_name)
    if not reference.is_file():
        raise ModelError(
            f"{reference} is missing, which {model} is compared with: put the ONNX file that the engine was "
            "built from there, or name it as device.reference_model"
        )
    return reference


def open_reference(session: Session, reference_model: Path | None = None, threads: int = 1) -> Session:
    """Open the CPU session of the ONNX file behind `session`.

    Returns `session` itself if that runs on the CPU. Raises ModelError when the file is missing or unfit.
    """
    if session.runs_on == "cpu":
        return session
    return open_session(find_reference(session.path, reference_model), SessionOptions(threads=threads))


def check_canary(
    session: Session, reference: Session, clock: Callable[[], float] = time.perf_counter
) -> CanaryResult:
    """Compare `session` with `reference`, the CPU session of the same ONNX file.

    A CPU session has no other reference: its outputs must be finite, not zero, and the same twice. Never
    raises: a network that fails does not pass.
    """
    if session.sha256 != reference.sha256:
        return _failed(
            f"{session.path} is of the model {session.sha256[:12]} and is compared with {reference.path}, "
            f"which is {reference.sha256[:12]}: they are not the same model"
        )
    by_itself = session.runs_on == "cpu"
    try:
        batch = canary_input(session.input.shape)
        started = clock()
        answers = session.run(batch)
        milliseconds = (clock() - started) * 1000
        expected = (session if by_itself else reference).run(batch)
    except ModelError as error:
        return _failed(str(error))
    problem = _problem(answers, expected)
    if problem:
        return _failed(f"{session.path} on {session.runs_on} {problem}", milliseconds)
    cosine = min(_lowest_cosine(*pair) for pair in zip(answers, expected, strict=True))
    if by_itself:
        return _check_cpu(session, cosine, milliseconds)
    passed = cosine >= MIN_COSINE
    detail = (
        f"{session.runs_on} against the CPU: lowest cosine of {INPUTS} inputs {cosine:.5f}, "
        f"{MIN_COSINE} is needed"
    )
    return CanaryResult(cosine, passed, detail, milliseconds)


def _check_cpu(session: Session, cosine: float, milliseconds: float) -> CanaryResult:
    if cosine < _SAME:
        return CanaryResult(
            cosine, False, f"{session.path} answers the same input differently: {cosine:.5f}", milliseconds
        )
    detail = "runs on the CPU, which is the reference: answers are finite, not zero, and the same twice"
    return CanaryResult(cosine, True, detail, milliseconds)


def _failed(detail: str, milliseconds: float = 0.0) -> CanaryResult:
    return CanaryResult(0.0, False, detail, milliseconds)


def _problem(answers: list[Float32], expected: list[Float32]) -> str | None:
    """Return what is wrong with `answers` besides their numbers, or None."""
    shapes, wanted = [each.shape for each in answers], [each.shape for each in expected]
    if shapes != wanted:
        return f"answers {[list(shape) for shape in shapes]}, expected {[list(shape) for shape in wanted]}"
    if not all(np.isfinite(answer).all() for answer in answers):
        return "answers NaN or infinity"
    if not all(answer.reshape(len(answer), -1).any(axis=1).all() for answer in answers if answer.size):
        return "answers zeros to one of the inputs"
    return None


def _lowest_cosine(answer: Float32, expected: Float32) -> float:
    first = answer.reshape(len(answer), -1).astype(np.float64)
    second = expected.reshape(len(expected), -1).astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    dots = (first * second).sum(axis=1)
    # A reference with zeros or NaN proves nothing.
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return float(np.nan_to_num(cosines, nan=0.0).min(initial=1.0))
