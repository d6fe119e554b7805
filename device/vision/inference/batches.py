"""Run a batch of any size through a network with a bound on rows at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .session import Float32, ModelError, TensorInfo

Run = Callable[[Float32], list[NDArray[Any]]]


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Return a readable shape such as `[n, 3, 112, 112]`.

    `?` and a leading `n` are free.
    """
    names = [("n" if axis == 0 else "?") if size is None else str(size) for axis, size in enumerate(shape)]
    return f"[{', '.join(names)}]"


def check_batch(batch: Float32, expected: TensorInfo) -> None:
    """Raise ModelError unless `batch` fits `expected` in type and shape.

    The row count is free, but an empty batch does not fit.
    """
    shape = expected.shape
    fits = batch.dtype == np.float32 and batch.ndim == len(shape) and len(batch) > 0
    if not fits or any(
        size not in (None, found) for size, found in zip(shape[1:], batch.shape[1:], strict=True)
    ):
        raise ModelError(
            f"the network takes float32{shape_text((None, *shape[1:]))}, "
            f"this is {batch.dtype}{list(batch.shape)}"
        )


def run_in_chunks(run: Run, batch: Float32, *, at_most: int | None, exactly: bool) -> list[Float32]:
    """Return every output of `run` for `batch`, as float32.

    Outputs of several calls are joined along the first axis.

    `run` receives at most `at_most` rows per call (None: any number). With `exactly` it always receives that
    many: the last chunk is padded with zeros, and the outputs of the padding are dropped. Raises ModelError
    when a divided or padded batch yields an output without one row per input row.
    """
    if at_most is None or (len(batch) <= at_most and not exactly) or len(batch) == at_most:
        return _as_float32(run(batch))
    parts = []
    for start in range(0, len(batch), at_most):
        chunk = batch[start : start + at_most]
        rows = len(chunk)
        if exactly and rows < at_most:
            chunk = np.concatenate([chunk, np.zeros((at_most - rows, *batch.shape[1:]), np.float32)])
        answers = _as_float32(run(chunk))
        if any(answer.shape[:1] != (len(chunk),) for answer in answers):
            shapes = ", ".join(str(list(answer.shape)) for answer in answers)
            raise ModelError(
                f"the network answers {shapes} to {len(chunk)} rows, "
                f"so more than the {at_most} rows that it takes at once cannot be run"
            )
        parts.append([answer[:rows] for answer in answers])
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def _as_float32(outputs: list[NDArray[Any]]) -> list[Float32]:
    return [output.astype(np.float32, copy=False) for output in outputs]
