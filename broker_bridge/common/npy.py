"""Read and write vectors in `.npy` files, the exchange format of seed 000."""

import io
import tokenize

import numpy as np
from numpy.lib import format as npy

from broker_bridge.contract.embeddings import MAX_DIMENSION, normalise
from broker_bridge.contract.errors import ContractError

# The exceptions that NumPy raises for an invalid header.
_HEADER_ERRORS = (
    ValueError,
    SyntaxError,
    TypeError,
    MemoryError,
    RecursionError,
    OverflowError,
    tokenize.TokenError,
)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class NpyFileError(ValueError):
    """A file without a vector of the space; the sentence quotes none of its content."""


def parse_npy(data: bytes, dimension: int | None = None) -> bytes:
    """Return the unit vector (float32 bytes) in the bytes of an `.npy` file.

    The file contains float32[d] or float32[1,d]. `dimension` None accepts the file's own, 4096 at most. No
    data is unpickled, and no memory allocated for the size that the header states. Raises NpyFileError.
    """
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = _HEADERS[version](stream)
    except KeyError as error:
        raise NpyFileError("its version of the npy format is not supported, expected 1.0 or 2.0") from error
    except _HEADER_ERRORS as error:
        raise NpyFileError("it is no .npy file, or the beginning of one") from error
    if dtype.hasobject:
        raise NpyFileError("it holds pickled objects, which are never loaded; expected float32")
    if (dtype.kind, dtype.itemsize) != ("f", 4):
        raise NpyFileError(f"its type is {dtype.name[:40]}, expected float32")
    found = ",".join(map(str, shape[:4]))[:60]
    if dimension is None:
        dimension = shape[-1] if shape and 1 <= shape[-1] <= MAX_DIMENSION else MAX_DIMENSION
    if shape not in ((dimension,), (1, dimension)):
        raise NpyFileError(f"its shape is [{found}], expected [{dimension}] or [1,{dimension}]")
    body = data[stream.tell() :]
    if len(body) != 4 * dimension:
        what = "incomplete" if len(body) < 4 * dimension else "longer than its header says"
        raise NpyFileError(f"it is {what}: {len(body)} bytes of numbers, expected {4 * dimension}")
    try:
        # A signalling NaN would emit a warning before its rejection.
        with np.errstate(invalid="ignore"):
            return normalise(np.frombuffer(body, dtype=dtype), dimension)
    except ContractError as error:
        raise NpyFileError(error.detail) from error


def to_npy(vector: bytes) -> bytes:
    """Return a `.npy` file with `vector` (little-endian float32 bytes)."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(vector) // 4,)}
    npy.write_array_header_1_0(stream, header)
    return stream.getvalue() + vector
