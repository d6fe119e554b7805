"""Read the numbers of a file that dlib's `serialize` wrote, without dlib.

An integer is one byte, whose lower half is the number of bytes that follow (the lowest first) and whose
highest bit is the sign. A floating-point number is two integers, a mantissa and an exponent of two. A text
is its length and its bytes. Nothing tells which of them comes next: the caller knows the class.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LENGTH, _FAULTY, _NEGATIVE = 0x0F, 0x70, 0x80
_MOST_BYTES = 8
_TENSOR_VERSION = 2
# Exponents of infinity, minus infinity and NaN.
_SPECIAL = 32000


class DlibFormatError(Exception):
    """A file that ends early or holds other numbers than its class has."""


class DlibReader:
    """A cursor over the numbers of a file.

    It reads them in the order in which they were written. Each method raises DlibFormatError when the file
    holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        self._position = 0

    def read_int(self) -> int:
        return int(self.read_ints(1)[0])

    def read_ints(self, count: int) -> NDArray[np.int64]:
        """Return int64[count]."""
        starts = self._skip_ints(count)
        content = np.frombuffer(self._data, dtype=np.uint8)
        control = content[starts]
        lengths = control & _LENGTH
        if (lengths > _MOST_BYTES).any() or (control & _FAULTY).any():
            raise DlibFormatError(f"{self._path}: no integer of dlib begins at byte {starts[0]} or after it")
        values = np.zeros(count, dtype=np.uint64)
        for place in range(_MOST_BYTES):
            longer = lengths > place
            values[longer] |= content[starts[longer] + 1 + place].astype(np.uint64) << np.uint64(8 * place)
        signed = values.astype(np.int64)
        return np.where(control & _NEGATIVE, -signed, signed)

    def read_floats(self, count: int) -> NDArray[np.float32]:
        """Return float32[count]."""
        return to_floats(self.read_ints(2 * count).reshape(count, 2)).astype(np.float32)

    def read_matrix(self) -> NDArray[np.float32]:
        """Return a matrix, float32[rows, columns]."""
        # dlib marks its present form by negative sizes.
        rows, columns = (-self.read_ints(2)).tolist()
        if rows < 0 or columns < 0:
            raise DlibFormatError(f"{self._path}: {-rows} and {-columns} are no sizes of a matrix")
        return self.read_floats(rows * columns).reshape(rows, columns)

    def read_text(self) -> str:
        """Return a text, such as the name of a layer."""
        length = self.read_int()
        end = self._position + length
        if not 0 <= length <= len(self._data) - self._position:
            raise DlibFormatError(f"{self._path}: a text of {length} bytes does not fit into the file")
        text = self._data[self._position : end]
        self._position = end
        return text.decode("latin-1")

    def find_layer(self, name: str) -> None:
        """Move past the next occurrence of `name`, which begins a layer of a network."""
        marker = bytes([1, len(name)]) + name.encode()
        found = self._data.find(marker, self._position)
        if found < 0:
            raise DlibFormatError(f"{self._path} has no further layer {name}")
        self._position = found + len(marker)

    def read_tensor(self) -> NDArray[np.float32]:
        """Return the numbers of a tensor, float32[n].

        A tensor is its version, its four sizes, and plain little-endian floats.
        """
        version, *sizes = self.read_ints(5).tolist()
        count = math.prod(sizes)
        end = self._position + 4 * count
        if version != _TENSOR_VERSION or min(sizes) < 0 or end > len(self._data):
            raise DlibFormatError(f"{self._path}: no tensor of dlib begins before byte {self._position}")
        values = np.frombuffer(self._data, dtype="<f4", count=count, offset=self._position)
        self._position = end
        return values.astype(np.float32)

    def check_end(self) -> None:
        """Raise DlibFormatError unless all was read."""
        rest = len(self._data) - self._position
        if rest:
            raise DlibFormatError(f"{self._path} goes on for {rest} bytes after what was expected in it")

    def _skip_ints(self, count: int) -> NDArray[np.intp]:
        """Return where each of the next `count` integers begins, and move past them."""
        data, position, starts = self._data, self._position, []
        try:
            for _ in range(count):
                starts.append(position)
                position += 1 + (data[position] & _LENGTH)
        except IndexError:
            position = len(data) + 1
        if position > len(data):
            raise DlibFormatError(f"{self._path} ends at byte {len(data)}, within its numbers")
        self._position = position
        return np.array(starts, dtype=np.intp)


def to_floats(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64[...] of mantissas and exponents, int64[..., 2].

    Raises DlibFormatError for infinity and NaN.
    """
    if (np.abs(pairs[..., 1]) >= _SPECIAL).any():
        raise DlibFormatError("expected finite numbers, found infinity or NaN")
    return np.ldexp(pairs[..., 0].astype(np.float64), pairs[..., 1].astype(np.int32))
