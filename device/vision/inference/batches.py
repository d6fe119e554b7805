"""How a batch of any size goes through a network that takes a certain number of rows at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .session import Float32, ModelError, TensorInfo

Run = Callable[[Float32], list[NDArray[Any]]]


def shape_text(shape: tuple[int | None, ...]) -> str:
    """`[n, 3, 112, 112]` for people; `?` is a dimension that is free, `n` the first one if it is."""
    names = [("n" if axis == 0 else "?") if size is None else str(size) for axis, size in enumerate(shape)]
    return f"[{', '.join(names)}]"


def check_batch(batch: Float32, expected: TensorInfo) -> None:
    """Raises ModelError unless `batch` is float32 of at least one row and of the other dimensions of
    `expected`."""
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
    """Every output of `run` for all rows of `batch`, joined along the first axis, as float32.

    `run` gets at most `at_most` rows at a time (None: any number). With `exactly` it always gets that many:
    the last chunk is filled up with zeros and its answers to those are cut off. Raises ModelError when a
    batch had to be divided or filled up and an output is not one row per row of its input.
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
                f"so that more than the {at_most} it takes at once cannot be run"
            )
        parts.append([answer[:rows] for answer in answers])
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def _as_float32(outputs: list[NDArray[Any]]) -> list[Float32]:
    return [output.astype(np.float32, copy=False) for output in outputs]
