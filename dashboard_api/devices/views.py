"""What the API takes and shows of devices and sites, and of how far devices are with people."""

from typing import Annotated, Any, Literal

from pydantic import Field

from broker_bridge.contract.ids import DeviceId, SiteId
from broker_bridge.contract.messages import EnrollmentPolicy
from dashboard_api.http.base_models import Body, Time, View


class DeviceBody(Body):
    device_id: DeviceId
    site_id: SiteId
    dev_mode: bool = False


class DevicePatch(Body):
    """`metres_per_pixel`: how much a pixel shows of people where they pass the camera; null if unknown."""

    metres_per_pixel: Annotated[float, Field(gt=0, le=1)] | None


class ProblemView(View):
    code: str
    detail: str


class DeviceView(View):
    """What a device last said. `silent`: no sign of life for three heartbeats, whatever its status says.

    `problems` say why it works with less than all it has, by its own word and by the registry's records.
    Without `site_id` it is one that nobody has registered: shown, not served. `metres_per_pixel` is its
    calibration, if it has one.
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
    info: dict[str, Any] | None
    heartbeat: dict[str, Any] | None
    applied: dict[str, Any] | None


class DevicePage(View):
    items: list[DeviceView]
    next_cursor: str | None


class SitePatch(Body):
    """What is named changes."""

    enrollment_policy: EnrollmentPolicy = "closed"
    registers_employees: bool = False


class SiteView(View):
    """`enrollment_policy`: whether the site's cameras register people whom nobody knows; with
    `registers_employees` its devices enroll employees by their user id, as from a watched folder."""

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


class SyncStatusView(View):
    epoch: str
    version: int
    horizon: int
    up_to_date: int
    behind: int
    devices: list[DeviceSync]
