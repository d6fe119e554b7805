"""Read the record that lies beside a model file.

That of `arcface.onnx` or `arcface.engine` is `arcface.json`.
"""

from pathlib import Path

from pydantic import ValidationError

from broker_bridge.contract.spaces import SpaceRecord

from .inference.session import ModelError

_MAX_BYTES = 64 * 1024


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
