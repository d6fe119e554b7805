"""Bodies of embedding spaces."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from broker_bridge.contract.spaces import (
    Alignment,
    DetectorName,
    Dimension,
    LimitsSource,
    SpaceLimits,
    SpaceRecord,
)
from broker_bridge.contract.wire import Sha256
from dashboard_api.http.base_models import Body, View, Whole


class SpaceLimitsBody(SpaceLimits):
    """All limits of a space, as cosines; unknown names are rejected."""

    model_config = ConfigDict(extra="forbid")


class LimitsSourceBody(LimitsSource):
    """Where the limits come from."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _calibration_names_pairs(self) -> "LimitsSourceBody":
        if self.kind == "calibrated" and (self.pairs is None or self.at is None):
            raise ValueError("calibrated limits name the number of pairs and the time")
        return self


class SpaceBody(Body):
    """The whole record of a space; what is absent is not on record."""

    dimension: Annotated[Dimension, Whole]
    model_sha256: Sha256 | None = None
    detector: DetectorName | None = None
    alignment: Alignment | None = None
    limits: SpaceLimitsBody | None = None
    source: LimitsSourceBody | None = None

    @model_validator(mode="after")
    def _source_has_limits(self) -> "SpaceBody":
        if self.source is not None and self.limits is None:
            raise ValueError("source says where limits come from: give limits too")
        return self


class SpaceView(View):
    """A space as it is on record, with the limits that hold, and its use.

    Without `limits` nothing is matched in it. `templates` and `identities` count enrolled people that are not
    deleted; `devices` are the ids that declare the space. `default` is set for the space of a modality where
    a request names none.
    """

    space: str
    dimension: int
    model_sha256: str | None
    detector: DetectorName | None
    alignment: Alignment | None
    limits: SpaceLimits | None
    source: LimitsSource | None
    templates: int
    identities: int
    devices: list[str] = Field(description="The ids of the devices that declare the space.")
    default: bool


class SpaceList(View):
    items: list[SpaceView]


class RemovedSpaceView(View):
    """What was removed with a space."""

    space: str
    templates: int
    identities: int
    detected_faces: int


def to_record(space_id: str, body: SpaceBody) -> SpaceRecord:
    return SpaceRecord.model_validate({"space": space_id, **body.model_dump(exclude_none=True)})
