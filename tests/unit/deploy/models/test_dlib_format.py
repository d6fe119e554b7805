"""dlib's serialized numbers, read without dlib."""

from pathlib import Path

import numpy as np
import pytest

from deploy.models.dlib_format import DlibFormatError, DlibReader


def integer(value: int) -> bytes:
    """Return `value` as dlib's `serialize` writes it."""
    digits = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(digits) | (0x80 if value < 0 else 0)]) + digits


def floating(value: float) -> bytes:
    """Return `value` in dlib's form: a mantissa of 24 bits, an exponent."""
    mantissa, exponent = np.frexp(value)
    return integer(int(mantissa * 2**24)) + integer(int(exponent) - 24)


def reader_of(tmp_path: Path, content: bytes) -> DlibReader:
    path = tmp_path / "numbers.dat"
    path.write_bytes(content)
    return DlibReader(path)


def test_integers_of_all_lengths_and_signs_are_read(tmp_path: Path) -> None:
    """Integers of one to eight bytes come back with their signs."""
    values = [0, 1, -1, 255, 256, -256, 65_535, -8_388_608, 2**31, -(2**40), 2**62, 2**63 - 1]
    reader = reader_of(tmp_path, b"".join(map(integer, values)))
    assert reader.read_int() == 0
    assert reader.read_ints(len(values) - 1).tolist() == values[1:]
    reader.check_end()


def test_floats_matrices_and_texts_are_read_in_their_order(tmp_path: Path) -> None:
    """Floating-point numbers are exact; a matrix has its sizes, a text its bytes."""
    numbers = np.float32([0, 1, -0.1, 3e-5, 12345.678, -1e9])
    matrix = integer(-2) + integer(-3) + b"".join(floating(float(number)) for number in numbers)
    name = integer(5) + b"con_4"
    reader = reader_of(tmp_path, matrix + name + floating(0.25))
    np.testing.assert_array_equal(reader.read_matrix(), numbers.reshape(2, 3))
    assert reader.read_text() == "con_4"
    assert reader.read_floats(1).tolist() == [0.25]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x03\x01\x02", b"\x09" + bytes(9), b"\x41\x01", b"not of dlib"],
    ids=["empty", "breaks off", "nine bytes", "faulty control", "another file"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """What no integer of dlib can be is an error, whatever it is."""
    with pytest.raises(DlibFormatError):
        reader_of(tmp_path, content).read_ints(1)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Infinity and NaN, exponents of 32000 and more, are an error."""
    with pytest.raises(DlibFormatError, match="infinity or NaN"):
        reader_of(tmp_path, integer(0) + integer(32_002)).read_floats(1)


def test_a_matrix_text_or_end_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Sizes are checked before anything is read by them."""
    with pytest.raises(DlibFormatError, match="matrix"):
        reader_of(tmp_path, integer(3) + integer(3)).read_matrix()
    with pytest.raises(DlibFormatError, match="text"):
        reader_of(tmp_path, integer(9) + b"con").read_text()
    with pytest.raises(DlibFormatError, match="goes on for 2 bytes"):
        reader_of(tmp_path, integer(9)).check_end()
