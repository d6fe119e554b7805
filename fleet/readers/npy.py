"""A vector in a `.npy` file as a template for the API."""

import io
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from broker_bridge.contract.embeddings import MAX_DIMENSION, normalise, to_base64
from broker_bridge.contract.errors import ContractError
from fleet.errors import FileRefusedError

from .files import read_bytes

SUFFIX = ".npy"
FOLDERS = {"face_db": "face", "gait_db": "gait", "speaker_db": "speaker"}
"""The folders of a device (seed 000): their name says of which modality the files in them are."""
_MOST_BYTES = 4 * MAX_DIMENSION + 4096
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


@dataclass(frozen=True)
class Spaces:
    """Of which space a file is: of `space` if it was named, else by the folder that it lies in."""

    space: str | None = None

    def of(self, file: Path) -> dict[str, str]:
        """What a template says of its space; raises FileRefusedError."""
        if self.space:
            return {"space": self.space}
        if modality := FOLDERS.get(file.parent.name):
            return {"modality": modality}
        raise FileRefusedError("nobody says of which embedding space it is: give --space")


def read_template(file: Path, root: Path, spaces: Spaces) -> dict[str, Any]:
    """The template in `file`, of float32[d] or float32[1,d]; raises FileRefusedError."""
    said = spaces.of(file)
    return {**said, "vector": to_base64(parse_npy(read_bytes(file, root, _MOST_BYTES)))}


def parse_npy(data: bytes) -> bytes:
    """The unit vector (float32[d] bytes) in the bytes of a `.npy` file; raises FileRefusedError.

    Nothing is unpickled, and nothing allocated by what the header claims.
    """
    stream = io.BytesIO(data)
    try:
        shape, _, dtype = _HEADERS[npy.read_magic(stream)](stream)
    except (KeyError, *_NONSENSE) as error:
        raise FileRefusedError("it is no .npy file of version 1.0 or 2.0") from error
    if dtype.hasobject:
        raise FileRefusedError("it holds pickled objects, which are never loaded; expected float32")
    if (dtype.kind, dtype.itemsize) != ("f", 4):
        raise FileRefusedError(f"its type is {dtype.name[:40]}, expected float32")
    body = data[stream.tell() :]
    dimension = shape[-1] if shape else 0
    if shape not in ((dimension,), (1, dimension)) or not 1 <= dimension <= MAX_DIMENSION:
        raise FileRefusedError("its shape is not [d] or [1,d]")
    if len(body) != 4 * dimension:
        raise FileRefusedError(f"it has {len(body)} bytes of numbers, expected {4 * dimension}")
    try:
        # A signalling NaN would warn on its way to the sentence that refuses it.
        with np.errstate(invalid="ignore"):
            return normalise(np.frombuffer(body, dtype=dtype), dimension)
    except ContractError as error:
        raise FileRefusedError(error.detail) from error
