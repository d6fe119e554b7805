"""Define embedding spaces and the encoding of vectors.

A vector is little-endian float32 of unit length, base64 on the wire. Between wire, MongoDB and SQLite it
stays `bytes`: the gallery digest relies on equal bytes on both sides. Only computations make it an array.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import VECTOR_INVALID, ContractError

Vector = NDArray[np.float32]

DEFAULT_DIMENSIONS = {"face": 512, "gait": 256, "speaker": 192}
"""Dimension per modality where a space names none (seed 000)."""

MAX_DIMENSION = 4096
# The direction of a shorter vector is rounding noise.
_MIN_LENGTH = 1e-6
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class EmbeddingSpace:
    """A space of comparable vectors; `id` is `<modality>:<model>`."""

    id: str
    dimension: int
    model_sha256: str | None = None

    @property
    def modality(self) -> str:
        return self.id.partition(":")[0]

    @property
    def model(self) -> str:
        return self.id.partition(":")[2]


def normalise(values: Sequence[float] | NDArray[np.floating], dimension: int) -> bytes:
    """Return the little-endian float32 bytes of `values` at unit length.

    Raises ContractError(`vector-invalid`) unless `values` is one flat vector of `dimension` finite
    numbers that is not (nearly) zero.
    """
    try:
        wide = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(VECTOR_INVALID, f"a vector is a flat list of {dimension} numbers") from error
    if wide.ndim != 1 or wide.shape[0] != dimension:
        shape = "x".join(map(str, wide.shape)) or "a scalar"
        raise ContractError(VECTOR_INVALID, f"expected {dimension} numbers in one list, got {shape}")
    if not np.isfinite(wide).all():
        raise ContractError(VECTOR_INVALID, "a vector holds finite numbers, this one has NaN or infinity")
    # Scaling by the largest first keeps the square from overflowing for numbers near the float64 limit.
    largest = float(np.abs(wide).max())
    if largest < _MIN_LENGTH:
        raise ContractError(VECTOR_INVALID, "a zero vector has no direction and cannot be compared")
    wide = wide / largest
    unit: bytes = (wide / np.linalg.norm(wide)).astype("<f4").tobytes()
    return unit


def check_vector(vector: bytes, dimension: int) -> None:
    """Raise ContractError unless `vector` is a unit vector float32[dimension].

    The code is `vector-invalid`; a vector that is not finite has no unit length.
    """
    if len(vector) != 4 * dimension:
        raise ContractError(VECTOR_INVALID, f"expected float32[{dimension}], got {len(vector)} bytes")
    # NaN and an overflow to infinity fail the comparison as well, so one test covers finite, zero and unit.
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(to_array(vector)))
    if not abs(length - 1.0) < _UNIT_TOLERANCE:
        raise ContractError(VECTOR_INVALID, f"a stored vector has unit length, this one has {length:.4g}")


def to_array(vector: bytes) -> Vector:
    """Return a read-only float32[d] view of stored vector bytes, without a copy."""
    return np.frombuffer(vector, dtype="<f4")


def from_base64(text: str) -> bytes:
    """Return the bytes of a vector in its wire form.

    Raises ContractError(`vector-invalid`) unless they are 1 to 4096 float32.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContractError(VECTOR_INVALID, "a vector is base64 of little-endian float32") from error
    return check_float32(raw)


def check_float32(raw: bytes) -> bytes:
    """Return `raw` if it is 1 to 4096 float32. Raises ContractError(`vector-invalid`)."""
    if not raw or len(raw) % 4 or len(raw) > 4 * MAX_DIMENSION:
        raise ContractError(
            VECTOR_INVALID, f"a vector has 1 to {MAX_DIMENSION} float32 of 4 bytes each, got {len(raw)} bytes"
        )
    return raw


def to_base64(vector: bytes) -> str:
    """Return the wire form of stored vector bytes."""
    return base64.b64encode(vector).decode("ascii")
