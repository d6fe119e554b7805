"""Load the model that a command is about, with the parts that its record names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker_bridge.common.programs.version import how_to_install
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import Alignment, DetectorName, SpaceRecord
from fleet.errors import CannotRunError

if TYPE_CHECKING:
    from device.vision.detectors.detector import Detector
    from device.vision.embedder import FaceEmbedder

# A model file without a record has vectors of no space yet.
_UNRECORDED = "face:unrecorded"
FACE = "face:"


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
    with _explained():
        from device.vision.detectors.loader import load_detector  # noqa: PLC0415
        from device.vision.embedder import load_embedder  # noqa: PLC0415
        from device.vision.model_record import find_record  # noqa: PLC0415

        is_recorded = choice.model is None or find_record(choice.model) is not None
        embedder = load_embedder(choice.model, None if is_recorded else _UNRECORDED)
        record = embedder.record if is_recorded else None
        name: DetectorName = choice.detector or (record and record.detector) or "cascade"
        alignment: Alignment = choice.alignment or (record and record.alignment) or "landmarks"
        detector = load_detector(name, choice.detector_model, alignment=alignment)
    return LoadedModel(embedder, detector, record, name, alignment)


def record_beside(model: Path) -> tuple[Path, SpaceRecord | None]:
    """Return the place of the record beside `model`, and the record if there is one.

    Raises CannotRunError for a file that is no record.
    """
    with _explained():
        from device.vision.model_record import read_record, record_path  # noqa: PLC0415

        return record_path(model), read_record(model)


def measure_model(model: Path, space: str) -> EmbeddingSpace:
    """Return the space of a model by a run: its dimension and SHA-256.

    Raises CannotRunError for a file that is missing or no network of faces.
    """
    with _explained():
        from device.vision.embedder import FaceEmbedder  # noqa: PLC0415
        from device.vision.inference.loader import open_session  # noqa: PLC0415

        return FaceEmbedder(open_session(model), space).space


@contextmanager
def _explained() -> Iterator[None]:
    """Raise CannotRunError for a missing package, and for a model that cannot be used.

    The body imports on use: the other commands need neither OpenCV nor a runtime.
    """
    try:
        from device.vision.inference.session import ModelError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    try:
        yield
    except (ModelError, FileNotFoundError) as error:
        raise CannotRunError(str(error)) from error
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error


def _not_installed(error: ModuleNotFoundError) -> CannotRunError:
    return CannotRunError(f"{error.name} is not installed: {how_to_install('evaluate')}")
