"""Vectors in `.npy` files, as people, devices and other firmware exchange them (seed 000)."""

import io
import tokenize

import numpy as np
from numpy.lib import format as npy

from broker_bridge.contract.embeddings import MAX_DIMENSION, normalise
from broker_bridge.contract.errors import ContractError

# All that NumPy lets through when a header is nonsense.
_NONSENSE = (
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
    """A file holds no vector of the space. The sentence says what is wrong and quotes nothing of it."""


def parse_npy(data: bytes, dimension: int | None = None) -> bytes:
    """The unit vector (float32 bytes) in the bytes of an `.npy` file of float32[d] or float32[1,d].

    Without `dimension` it is the file's own, 4096 at most. Nothing is unpickled, and nothing allocated by
    what the header claims. Raises NpyFileError.
    """
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = _HEADERS[version](stream)
    except KeyError as error:
        raise NpyFileError("its version of the npy format is not supported, expected 1.0 or 2.0") from error
    except _NONSENSE as error:
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
        # A signalling NaN would warn on its way to the sentence that refuses it.
        with np.errstate(invalid="ignore"):
            return normalise(np.frombuffer(body, dtype=dtype), dimension)
    except ContractError as error:
        raise NpyFileError(error.detail) from error


def to_npy(vector: bytes) -> bytes:
    """The bytes of a `.npy` file that holds `vector` (little-endian float32 bytes)."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(vector) // 4,)}
    npy.write_array_header_1_0(stream, header)
    return stream.getvalue() + vector
