"""Bodies of devices, sites and the sync status."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from broker_bridge.contract.ids import DeviceId, SiteId
from broker_bridge.contract.messages import (
    DeviceInfo,
    EnrollmentPolicy,
    Heartbeat,
    SyncPosition,
    WireError,
)
from broker_bridge.contract.wire import WireTime
from dashboard_api.http.base_models import Body, DocumentedAs, Time, View
from dashboard_api.http.conditions import described_with, given_without


class DeviceBody(Body):
    device_id: DeviceId
    site_id: SiteId
    dev_mode: bool = False


class DevicePatch(Body):
    """The site to move to, or the calibration; an absent one stays.

    `metres_per_pixel` is measured at the distance where faces pass the camera; null if unknown.
    """

    model_config = ConfigDict(json_schema_extra=described_with(given_without("metres_per_pixel", "site_id")))

    site_id: SiteId | None = None
    metres_per_pixel: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> "DevicePatch":
        if self.site_id is None and "metres_per_pixel" not in self.model_fields_set:
            raise ValueError("expected site_id or metres_per_pixel")
        return self


class ProblemView(View):
    code: str
    detail: str


class InfoReport(DeviceInfo):
    """The last info of a device."""

    received_at: WireTime = Field(description="Time of receipt by the backend.")


class HeartbeatReport(Heartbeat):
    """The last heartbeat of a device."""

    received_at: WireTime = Field(description="Time of receipt by the backend.")


class AppliedReport(SyncPosition):
    """The version that a device has applied."""

    duration_ms: float | None = None
    error: WireError | None = None
    received_at: WireTime = Field(description="Time of receipt by the backend.")


class DeviceView(View):
    """A device with its last reports.

    `silent` means no message for three heartbeats, independent of `state`. `problems` explain a degraded
    device, by its own report and by the records of the registry. A device without `site_id` is not
    registered: it is listed, and not served. `metres_per_pixel` is its calibration.
    """

    device_id: str
    site_id: str | None
    dev_mode: bool
    state: Literal["online", "stopped", "lost", "never-seen"]
    silent: bool
    problems: list[ProblemView]
    last_seen: Time | None
    registered_at: Time | None
    metres_per_pixel: float | None
    info: Annotated[dict[str, Any], DocumentedAs(InfoReport)] | None
    heartbeat: Annotated[dict[str, Any], DocumentedAs(HeartbeatReport)] | None
    applied: Annotated[dict[str, Any], DocumentedAs(AppliedReport)] | None
    decommissioned_at: Time | None


class DevicePage(View):
    items: list[DeviceView]
    next_cursor: str | None


class SitePatch(Body):
    """The settings to change, at least one; absent ones stay."""

    model_config = ConfigDict(json_schema_extra=described_with({"minProperties": 1}))

    enrollment_policy: EnrollmentPolicy = "closed"
    registers_employees: bool = False


class SiteView(View):
    """A site with its policies.

    `enrollment_policy` decides whether its cameras register unknown faces as visitors. With
    `registers_employees` its devices may enroll employees by user id, as from a watched folder.
    """

    site_id: str
    enrollment_policy: EnrollmentPolicy
    registers_employees: bool
    devices: int
    head_version: int


class SiteList(View):
    items: list[SiteView]


class DeviceSync(View):
    device_id: str
    site_id: str
    epoch: str | None
    version: int | None
    applied_at: Time | None
    site_version: int
    up_to_date: bool


class EpochView(View):
    """An epoch that has begun, and the version at which it begins."""

    epoch: str
    version: int


class SyncStatusView(View):
    epoch: str
    version: int
    horizon: int
    up_to_date: int
    behind: int
    devices: list[DeviceSync]
