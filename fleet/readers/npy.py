"""A vector in a `.npy` file as a template for the API."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker_bridge.common.npy import NpyFileError, parse_npy
from broker_bridge.contract.embeddings import MAX_DIMENSION, to_base64
from fleet.errors import FileRefusedError

from .files import read_bytes

SUFFIX = ".npy"
FOLDERS = {"face_db": "face", "gait_db": "gait", "speaker_db": "speaker"}
"""The folders of a device (seed 000): their name says of which modality the files in them are."""
_MOST_BYTES = 4 * MAX_DIMENSION + 4096


@dataclass(frozen=True)
class NpySpaces:
    """Of which space a file is: of `space` if it was named, else by the folder that it lies in."""

    space: str | None = None

    def of(self, file: Path) -> dict[str, str]:
        """What a template says of its space; raises FileRefusedError."""
        if self.space:
            return {"space": self.space}
        if modality := FOLDERS.get(file.parent.name):
            return {"modality": modality}
        raise FileRefusedError("nobody says of which embedding space it is: give --space")


def read_template(file: Path, root: Path, spaces: NpySpaces) -> dict[str, Any]:
    """The template in `file`, of float32[d] or float32[1,d]; raises FileRefusedError."""
    said = spaces.of(file)
    try:
        return {**said, "vector": to_base64(parse_npy(read_bytes(file, root, _MOST_BYTES)))}
    except NpyFileError as error:
        raise FileRefusedError(str(error)) from error
