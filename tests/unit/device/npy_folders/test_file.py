"""Reading and writing one `.npy` file, and the files that are refused."""

import io
import os
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.common.npy import NpyFileError, parse_npy, to_npy
from broker_bridge.contract.embeddings import normalise, to_array
from device.npy_folders.file import (
    MAX_BYTES,
    FileMovedError,
    list_npy,
    read_bytes,
    remove_temporary,
    write_npy,
)

D = 8
VALUES = np.arange(1, D + 1, dtype=np.float32)


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


class Boom:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "array",
    [
        VALUES,
        VALUES.reshape(1, D),
        VALUES.astype(">f4"),
        np.asfortranarray(VALUES.reshape(1, D)),
        VALUES * np.float32(2.0**100),
    ],
    ids=["flat", "row", "big-endian", "fortran", "large"],
)
def test_a_float32_vector_is_read_at_unit_length(array):
    """The memory layout of the array does not matter."""
    assert parse_npy(npy(array), D) == normalise(VALUES, D)


def test_the_written_format_is_numpys_own(tmp_path):
    """The bytes equal those of `np.save`; only the owner can read the file.

    No other file is left beside it.
    """
    vector = normalise(VALUES, D)
    write_npy(tmp_path / "EMP-1.npy", to_npy(vector))
    assert (tmp_path / "EMP-1.npy").read_bytes() == npy(to_array(vector))
    assert (tmp_path / "EMP-1.npy").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["EMP-1.npy"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (npy(VALUES.astype(np.float64)), "float64, expected float32"),
        (npy(VALUES.astype(np.float16)), "float16, expected float32"),
        (npy(VALUES.astype(np.int32)), "int32, expected float32"),
        (npy(VALUES.reshape(2, D // 2)), r"\[2,4\], expected \[8\] or \[1,8\]"),
        (npy(np.arange(D + 1, dtype=np.float32)), r"\[9\], expected"),
        (npy(np.float32(1.0)), r"\[\], expected"),
        (npy(np.full(D, np.nan, np.float32)), "NaN or infinity"),
        (npy(np.full(D, np.inf, np.float32)), "NaN or infinity"),
        (npy(np.zeros(D, np.float32)), "zero vector"),
        (npy(VALUES)[:-1], "incomplete"),
        (npy(VALUES)[:20], "no .npy file, or the beginning of one"),
        (npy(VALUES) + b"x", "longer than its header says"),
        (b"", "no .npy file, or the beginning of one"),
        (b"PK\x03\x04" + bytes(200), "no .npy file"),
        (b"\x93NUMPY\x03\x00" + npy(VALUES)[8:], "version of the npy format"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"{" * 60_000, "no .npy file"),
    ],
)
def test_a_file_without_a_vector_of_the_space_is_refused(data, sentence):
    """The sentence names the expected format and no number of the vector."""
    with pytest.raises(NpyFileError, match=sentence) as refused:
        parse_npy(data, D)
    assert "7.0" not in str(refused.value)


def test_nothing_is_unpickled(tmp_path):
    """An object array is refused before its pickle is read."""
    data = npy(np.array([Boom(tmp_path / "made")], dtype=object), allow_pickle=True)
    with pytest.raises(NpyFileError, match="pickled objects"):
        parse_npy(data, D)
    assert not (tmp_path / "made").exists()


def test_a_header_that_claims_terabytes_allocates_nothing():
    """The shape in the header does not fit the space, so no data is read."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(NpyFileError, match="1000000000000"):
        parse_npy(header.getvalue() + bytes(32), D)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@given(
    st.lists(
        st.tuples(st.integers(0, 159), st.binary(max_size=3) | st.sampled_from([b"(", b"'", b"[", b"\n"])),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_file_is_read_or_refused(changes):
    """No file raises another exception than `NpyFileError`."""
    data = npy(VALUES)
    for at, piece in changes:
        data = data[:at] + piece + data[at + 1 :]
    with suppress(NpyFileError):
        assert len(parse_npy(data, D)) == 4 * D


def signature(path):
    return list_npy(path.parent)[path.name]


def test_links_folders_pipes_and_large_files_are_not_read(tmp_path):
    """Each has its sentence, and a pipe does not block."""
    (tmp_path / "secret").write_bytes(npy(VALUES))
    (tmp_path / "link.npy").symlink_to(tmp_path / "secret")
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "large.npy").write_bytes(npy(VALUES) + bytes(MAX_BYTES))
    for name, sentence in [
        ("link", "symbolic link"),
        ("folder", "not an ordinary file"),
        ("pipe", "not an ordinary file"),
        ("large", "at most 65536"),
    ]:
        path = tmp_path / f"{name}.npy"
        with pytest.raises(NpyFileError, match=sentence):
            read_bytes(path, signature(path))


def test_a_file_that_was_replaced_after_the_scan_is_not_read(tmp_path):
    """A link or pipe under its name is not opened either."""
    path = tmp_path / "EMP-1.npy"
    path.write_bytes(npy(VALUES))
    seen = signature(path)
    assert read_bytes(path, seen) == npy(VALUES)
    path.write_bytes(npy(2 * VALUES))
    os.utime(path, ns=(seen.mtime_ns, seen.mtime_ns))
    with pytest.raises(FileMovedError):
        read_bytes(path, seen)
    path.unlink()
    with pytest.raises(FileMovedError):
        read_bytes(path, seen)
    os.mkfifo(path)
    with pytest.raises(FileMovedError):
        read_bytes(path, seen)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(NpyFileError, match="cannot be read"):
        read_bytes(path, seen)


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    """A folder blocks the name; a full disk has the same effect."""
    (tmp_path / "EMP-1.npy").mkdir()
    (tmp_path / "EMP-1.npy" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_npy(tmp_path / "EMP-1.npy", b"data")
    assert [file.name for file in tmp_path.iterdir()] == ["EMP-1.npy"]


def test_temporary_files_of_a_dead_process_are_removed(tmp_path):
    """Other files stay. Temporary names do not end in `.npy`, so no scan reads them."""
    for name in (".wfm-0123456789abcdef.tmp", "EMP-1.npy", "notes.tmp", ".hidden"):
        (tmp_path / name).touch()
    remove_temporary(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".hidden", "EMP-1.npy", "notes.tmp"]
