"""Find the record of a model: the JSON beside its file, or what the settings say.

The record of `arcface.onnx` or `arcface.engine` is `arcface.json`. An engine without one has that of the
ONNX file it was built from.
"""

from importlib import resources
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.spaces import SpaceRecord

from .detectors.kind import DetectorKind
from .inference import engine_file
from .inference.session import ENGINE_SUFFIXES, ModelError

_MAX_BYTES = 64 * 1024
_PREFIX = "face:"


def built_in_model() -> Path:
    """Return the path of the model that comes with the product."""
    name = DEFAULT_FACE_SPACE.space.removeprefix(_PREFIX)
    return Path(str(resources.files(__package__) / "models" / f"{name}.onnx"))


def record_path(model: Path) -> Path:
    """Return where the record of `model` lies."""
    return model.with_suffix(".json")


def read_record(model: Path) -> SpaceRecord | None:
    """Return the record beside `model`, None if there is none.

    Raises ModelError for a file that cannot be read or is no record.
    """
    path = record_path(model)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"the record of the model cannot be read: {error}") from error
    if len(content) > _MAX_BYTES:
        raise ModelError(f"{path} is no record of a model: it has more than {_MAX_BYTES} bytes")
    try:
        return SpaceRecord.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the document"
        raise ModelError(f"{path} is no record of a model: {place}: {fault['msg']}") from error


def find_record(model: Path, reference_model: Path | None = None) -> SpaceRecord | None:
    """Return the record of `model`, None if there is none; raises ModelError.

    For an engine it may lie beside the ONNX file: `reference_model`, or the one that the engine names.
    """
    record = read_record(model)
    if record is not None or model.suffix.lower() not in ENGINE_SUFFIXES:
        return record
    onnx = reference_model
    if onnx is None and engine_file.record_path(model).is_file():
        onnx = model.with_name(engine_file.read_record(model).onnx_name)
    return read_record(onnx) if onnx is not None else None


def space_of(model: Path, record: SpaceRecord | None, configured: str | None) -> str:
    """Return the space of a model's vectors.

    It is that of the `record`, else the `configured` one. Raises ModelError if there is none, if they
    contradict each other, and for a space of another modality.
    """
    if record is None and configured is None:
        raise ModelError(
            f"{record_path(model)} is missing, the record of {model}: put it beside the model, or name the "
            "space of its vectors in the setting `space`, for example face:arcface-w600k-r50"
        )
    if record is not None and configured not in (None, record.space):
        raise ModelError(
            f"the setting `space` says {configured}, and the record of {model} says {record.space}: remove "
            "the setting, since the record names the space"
        )
    space = record.space if record is not None else str(configured)
    try:
        TypeAdapter(SpaceId).validate_python(space)
    except ValidationError as error:
        raise ModelError(f"{space!r} is not a space: expected face:<model>, in lower case") from error
    if not space.startswith(_PREFIX):
        raise ModelError(
            f"{space} is not a space of faces, and {model} is to recognise faces: expected a space like "
            "face:arcface-w600k-r50"
        )
    return space


def check_record(model: Path, record: SpaceRecord | None, measured: EmbeddingSpace) -> SpaceRecord:
    """Return the complete record of the file `model`, which was `measured`.

    Raises ModelError if the file is another one than its record, or the default's name, says.
    """
    complete = SpaceRecord(
        space=measured.id, dimension=measured.dimension, model_sha256=measured.model_sha256
    )
    sha256 = str(measured.model_sha256)
    if record is not None:
        if record.model_sha256 not in (None, sha256):
            raise ModelError(
                f"the model {model} has the SHA-256 {sha256[:12]}..., and its record says "
                f"{str(record.model_sha256)[:12]}...: vectors of two files do not compare; install the file "
                "that the record names, or give this file a record and a space of its own"
            )
        if record.dimension != measured.dimension:
            raise ModelError(
                f"the model {model} makes vectors of {measured.dimension} numbers, and its record says "
                f"{record.dimension}: correct {record_path(model)}"
            )
        complete = record.model_copy(update={"model_sha256": sha256})
    if measured.id == DEFAULT_FACE_SPACE.space and sha256 != DEFAULT_FACE_SPACE.model_sha256:
        raise ModelError(
            f"the model {model} is not the one of {measured.id}, which comes with this software (SHA-256 "
            f"{sha256[:12]}..., expected {str(DEFAULT_FACE_SPACE.model_sha256)[:12]}...): give it a record "
            "and a space of its own"
        )
    return complete


def with_detector(record: SpaceRecord, configured: DetectorKind | None) -> SpaceRecord:
    """Return `record` with its detector and alignment.

    A record without a detector has the `configured` one. Raises ModelError for a setting that contradicts
    the record.
    """
    if record.detector is not None and configured not in (None, record.detector):
        raise ModelError(
            f"the setting `detector` says {configured}, and the record of {record.space} says "
            f"{record.detector}: another detector crops faces differently, so that vectors do not compare; "
            "remove the setting"
        )
    detector: DetectorKind = record.detector or configured or "cascade"
    alignment = record.alignment or "landmarks"
    return record.model_copy(update={"detector": detector, "alignment": alignment})
