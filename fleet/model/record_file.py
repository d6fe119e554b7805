"""Write the record beside a model file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord
from fleet.errors import CannotRunError
from fleet.output_file import open_output

_MOST_BYTES = 64 * 1024
# Every program that loads the model reads its record.
_MODE = 0o644


class _LimitsDocument(BaseModel):
    """A record, or any other document with limits."""

    model_config = ConfigDict(extra="ignore")

    limits: SpaceLimits


def write_record(path: Path, record: SpaceRecord) -> None:
    """Write `record` as JSON to `path`, in one step; raises CannotRunError."""
    content = record.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"
    try:
        with open_output(str(path), mode=_MODE) as out:
            out.write(content)
    except OSError as error:
        raise CannotRunError(f"{path}: the record cannot be written ({error.strerror})") from error


def read_limits(path: Path) -> SpaceLimits:
    """Return the limits of a JSON file: the seven limits, or a record with them.

    Raises CannotRunError.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CannotRunError(f"--limits {path}: cannot be read ({error.strerror})") from error
    try:
        return _LimitsDocument.model_validate_json(content).limits
    except ValidationError:
        pass
    try:
        return SpaceLimits.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the document"
        names = ", ".join(SpaceLimits.model_fields)
        raise CannotRunError(f"--limits {path}: {place}: {fault['msg']}; expected {names}") from error
