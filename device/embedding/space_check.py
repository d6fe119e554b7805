"""Compare the worker's model with the backend's record of its space."""

import logging
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from broker_bridge.contract.spaces import SpaceRecord

from .errors import SpaceRefusedError

_log = logging.getLogger(__name__)


class RecordedSpace(BaseModel):
    """The part of the backend's record that vectors depend on; None is not on record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dimension: int
    model_sha256: str | None = None
    detector: str | None = None
    alignment: str | None = None


def space_path(space: str) -> str:
    """Return the path of the record of `space`."""
    return f"/api/v1/spaces/{quote(space, safe=':')}"


def unknown_space(space: str) -> SpaceRefusedError:
    """Return the error for a space that the backend has no record of."""
    return SpaceRefusedError(
        f"the backend has no record of {space}: make one (`wfm-fleet model add`), or give the worker the "
        "model that the backend and the cameras have"
    )


def check_space(own: SpaceRecord, recorded: RecordedSpace) -> None:
    """Raise SpaceRefusedError unless vectors of `own` compare with the recorded ones."""
    pairs = (
        ("dimension", own.dimension, recorded.dimension),
        ("SHA-256", own.model_sha256, recorded.model_sha256),
        ("detector", own.detector, recorded.detector),
        ("alignment", own.alignment, recorded.alignment),
    )
    differences = [
        f"{name} {_short(ours)} here, {_short(theirs)} on record"
        for name, ours, theirs in pairs
        if theirs is not None and ours != theirs
    ]
    if differences:
        raise SpaceRefusedError(
            f"the worker's model of {own.space} differs from the backend's record "
            f"({'; '.join(differences)}), so its vectors do not compare: give the worker the model and the "
            "settings on record, or a space of its own"
        )
    if recorded.model_sha256 is None:
        _log.warning("backend has no hash on record to compare with space=%s", own.space)


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 12 else text
