"""Does the configured session still answer what the model says? Compared with the CPU on fixed inputs.

Half precision, a wrong engine or a driver that miscalculates all show as vectors that point elsewhere, and a
space whose vectors point elsewhere recognises the wrong people: it is quarantined.
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
    """`cosine` is the lowest over all inputs and outputs (-1..1; 0 where there is none), `detail` a sentence,
    `milliseconds` what the configured session took for the four inputs."""

    cosine: float
    passed: bool
    detail: str
    milliseconds: float


def canary_input(shape: tuple[int | None, ...]) -> Float32:
    """float32[4, channels, height, width] for an input of `shape`: smooth random fields in -1..1, which is
    what a face is after preprocessing. The same for ever. Raises ModelError for other or open shapes."""
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
    """float64[size, 7]: what interpolates 7 values to `size`, linearly."""
    at = np.linspace(0, _COARSE - 1, size)
    weights: NDArray[np.float64] = np.clip(1 - np.abs(at[:, None] - np.arange(_COARSE)), 0, None)
    return weights


def find_reference(model: Path, reference_model: Path | None) -> Path:
    """The ONNX file that `model` is compared with: itself, or for an engine `reference_model`, or the file
    that its record names, beside it. Raises ModelError when it is not there."""
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
    """The CPU session of the ONNX file behind `session`; itself where it is that. Raises ModelError."""
    if session.runs_on == "cpu":
        return session
    return open_session(find_reference(session.path, reference_model), SessionOptions(threads=threads))


def check_canary(
    session: Session, reference: Session, clock: Callable[[], float] = time.perf_counter
) -> CanaryResult:
    """Whether `session` answers what `reference`, the CPU session of the same ONNX file, answers.

    A session that is the CPU's own has nothing to be compared with: its answers must be finite, not zero,
    and the same twice. Never raises: a network that fails has not passed.
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
        return _judge_by_itself(session, cosine, milliseconds)
    passed = cosine >= MIN_COSINE
    detail = (
        f"{session.runs_on} against the CPU: lowest cosine of {INPUTS} inputs {cosine:.5f}, "
        f"{MIN_COSINE} is needed"
    )
    return CanaryResult(cosine, passed, detail, milliseconds)


def _judge_by_itself(session: Session, cosine: float, milliseconds: float) -> CanaryResult:
    if cosine < _SAME:
        return CanaryResult(
            cosine, False, f"{session.path} answers the same input differently: {cosine:.5f}", milliseconds
        )
    detail = "runs on the CPU, which is the reference: answers are finite, not zero, and the same twice"
    return CanaryResult(cosine, True, detail, milliseconds)


def _failed(detail: str, milliseconds: float = 0.0) -> CanaryResult:
    return CanaryResult(0.0, False, detail, milliseconds)


def _problem(answers: list[Float32], expected: list[Float32]) -> str | None:
    """What is wrong with `answers` before any number is compared."""
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
    # The reference may be the one that answers zeros or NaN: then nothing has been shown.
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return float(np.nan_to_num(cosines, nan=0.0).min(initial=1.0))
