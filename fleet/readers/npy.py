"""Read a vector from a `.npy` file as a template for the API."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker_bridge.common.npy import NpyFileError, parse_npy
from broker_bridge.contract.embeddings import MAX_DIMENSION, to_base64
from fleet.errors import FileRefusedError

from .files import read_bytes

SUFFIX = ".npy"
FOLDERS = {"face_db": "face", "gait_db": "gait", "speaker_db": "speaker"}
"""The folders of a device (seed 000): the name gives the modality of the files."""
_MOST_BYTES = 4 * MAX_DIMENSION + 4096


@dataclass(frozen=True)
class NpySpaces:
    """Decide the space of a file: `space` if set, else the modality of its folder."""

    space: str | None = None

    def space_fields(self, file: Path) -> dict[str, str]:
        """Return the fields of a template that name its space; raises FileRefusedError."""
        if self.space:
            return {"space": self.space}
        if modality := FOLDERS.get(file.parent.name):
            return {"modality": modality}
        raise FileRefusedError("its embedding space is unknown: give --space")


def read_template(file: Path, root: Path, spaces: NpySpaces) -> dict[str, Any]:
    """Return the template in `file`, of float32[d] or float32[1,d].

    Raises FileRefusedError.
    """
    fields = spaces.space_fields(file)
    try:
        return {**fields, "vector": to_base64(parse_npy(read_bytes(file, root, _MOST_BYTES)))}
    except NpyFileError as error:
        raise FileRefusedError(str(error)) from error
