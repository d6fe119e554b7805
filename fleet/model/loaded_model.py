"""Load the model that a command is about, with the parts that its record names."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker_bridge.common.programs.version import how_to_install
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.spaces import Alignment, DetectorName, SpaceRecord
from fleet.errors import CannotRunError

if TYPE_CHECKING:
    from device.vision.detectors.detector import Detector
    from device.vision.embedder import FaceEmbedder

# A model file without a record has vectors of no space yet.
_UNRECORDED = "face:unrecorded"


@dataclass(frozen=True)
class ModelChoice:
    """The model of the command line; None of `model` is the built-in one.

    `detector` and `alignment` come before those of its record.
    """

    model: Path | None
    detector: DetectorName | None = None
    detector_model: Path | None = None
    alignment: Alignment | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model that embeds, its detector, and its record.

    `record` is None if there is none beside the model file.
    """

    embedder: "FaceEmbedder"
    detector: "Detector"
    record: SpaceRecord | None
    detector_name: DetectorName
    alignment: Alignment

    @property
    def dimension(self) -> int:
        return self.embedder.space.dimension


def load_model(choice: ModelChoice) -> LoadedModel:
    """Load a model and its detector.

    Raises CannotRunError for a file that is missing or unfit, a record that contradicts it, and packages
    that are not installed.
    """
    # Imported here: the other commands need neither OpenCV nor a runtime.
    try:
        from device.vision.detectors.loader import load_detector  # noqa: PLC0415
        from device.vision.embedder import load_embedder  # noqa: PLC0415
        from device.vision.inference.session import ModelError  # noqa: PLC0415
        from device.vision.model_record import read_record  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CannotRunError(f"{error.name} is not installed: {how_to_install('evaluate')}") from error
    try:
        record = DEFAULT_FACE_SPACE if choice.model is None else read_record(choice.model)
        name: DetectorName = choice.detector or (record and record.detector) or "cascade"
        alignment: Alignment = choice.alignment or (record and record.alignment) or "landmarks"
        space = record.space if record else _UNRECORDED
        embedder = load_embedder(str(choice.model) if choice.model else None, space)
        _check_record(choice.model, record, embedder)
        detector = load_detector(name, choice.detector_model)
    except (ModelError, FileNotFoundError) as error:
        raise CannotRunError(str(error)) from error
    return LoadedModel(embedder, detector, record, name, alignment)


def _check_record(model: Path | None, record: SpaceRecord | None, embedder: "FaceEmbedder") -> None:
    space = embedder.space
    if record is None or model is None:
        return
    if record.dimension != space.dimension:
        raise CannotRunError(
            f"the record beside {model} says {record.dimension} dimensions, the model makes "
            f"{space.dimension}: the record belongs to another model; write it anew with wfm-fleet model add"
        )
    if record.model_sha256 not in (None, space.model_sha256):
        raise CannotRunError(
            f"the record beside {model} is of a file with another SHA-256: "
            "the record belongs to another model; write it anew with wfm-fleet model add"
        )
