"""Define the values that the registry returns about devices."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from broker_bridge.registry.mongo.client import Document


@dataclass(frozen=True)
class Device:
    """A registered device. Display names are sent to a device in `dev_mode` only.

    `placement` counts its moves and its returns, the last one at `placed_at`.
    """

    device_id: str
    site_id: str
    dev_mode: bool = False
    placement: int = 0
    placed_at: datetime | None = None

    def own_epoch(self, epoch: str) -> str:
        """Return the epoch that a polling device gets for the history `epoch`.

        Each placement has one of its own. So a device that was moved or came back cannot continue its older
        gallery: it needs a snapshot sync.
        """
        return f"{epoch}{self.placement:x}" if self.placement else epoch

    def history_epoch(self, own_epoch: str | None, epoch: str) -> str | None:
        """Return the history that a polling device means.

        It is '0' for one of an older placement.
        """
        if not self.placement:
            return own_epoch
        return epoch if own_epoch == self.own_epoch(epoch) else "0"


@dataclass(frozen=True)
class DevicePresence:
    """The newest status of a device: `online`, `stopped` or `lost` in a session."""

    state: Literal["online", "stopped", "lost"]
    session: str
    received_at: datetime


@dataclass(frozen=True)
class DeviceRecord:
    """Everything recorded about a device; without `site_id` it is not registered.

    `info`, `heartbeat` and `applied` are the last messages of their kind, with `received_at` added.
    """

    device_id: str
    site_id: str | None = None
    dev_mode: bool = False
    registered_at: datetime | None = None
    metres_per_pixel: float | None = None
    status: DevicePresence | None = None
    last_report_at: datetime | None = None
    info: Mapping[str, Any] | None = None
    heartbeat: Mapping[str, Any] | None = None
    applied: Mapping[str, Any] | None = None
    duplicate: Mapping[str, Any] | None = None
    decommissioned_at: datetime | None = None
    placement: int = 0
    placed_at: datetime | None = None

    @property
    def registered(self) -> Device | None:
        """The device as a participant, None if it is not registered."""
        if not self.site_id:
            return None
        return Device(self.device_id, self.site_id, self.dev_mode, self.placement, self.placed_at)

    @property
    def last_seen(self) -> datetime | None:
        """The time of receipt of the newest message of any kind."""
        signs = [self.last_report_at, self.status.received_at if self.status else None]
        return max((sign for sign in signs if sign), default=None)

    @property
    def declared_spaces(self) -> Mapping[str, Mapping[str, Any]]:
        """The embedding spaces of the device's info, by id."""
        spaces: Mapping[str, Mapping[str, Any]] = (self.info or {}).get("spaces", {})
        return spaces

    @property
    def declared_models(self) -> dict[str, str]:
        """The SHA-256 of the model files of the device's info, by space."""
        return {
            space: declared["model_sha256"]
            for space, declared in self.declared_spaces.items()
            if declared.get("model_sha256")
        }


@dataclass(frozen=True)
class AppliedVersion:
    """The newest version of its site's history that a device has confirmed.

    `differs` if it does not have the templates of that version: then it confirms nothing.
    """

    device_id: str
    site_id: str
    epoch: str | None
    version: int | None
    at: datetime | None
    differs: bool = False

    def confirms(self, epoch: str, version: int) -> bool:
        """Return whether the device has applied every change up to `version`."""
        if self.differs or self.version is None:
            return False
        return self.epoch == epoch and self.version >= version


def to_device(found: Document) -> Device:
    """Return the device of a document that has a site."""
    placement, placed_at = found.get("placement", 0), found.get("placed_at")
    return Device(found["_id"], found["site_id"], found["dev_mode"], placement, placed_at)


def to_record(found: Document) -> DeviceRecord:
    """Return the record of a document of the collection `devices`."""
    status = found.get("status")
    return DeviceRecord(
        device_id=found["_id"],
        site_id=found.get("site_id"),
        dev_mode=found.get("dev_mode", False),
        registered_at=found.get("registered_at"),
        metres_per_pixel=found.get("metres_per_pixel"),
        status=DevicePresence(status["state"], status["session"], status["received_at"]) if status else None,
        last_report_at=found.get("last_seen"),
        info=found.get("info"),
        heartbeat=found.get("heartbeat"),
        applied=found.get("applied"),
        duplicate=found.get("duplicate"),
        decommissioned_at=found.get("decommissioned_at"),
        placement=found.get("placement", 0),
        placed_at=found.get("placed_at"),
    )


def to_applied_version(found: Document) -> AppliedVersion:
    """Return the confirmation of a document that has `site_id` and `applied`."""
    applied = found.get("applied") or {}
    return AppliedVersion(
        found["_id"],
        found["site_id"],
        applied.get("epoch"),
        applied.get("version"),
        applied.get("received_at"),
        applied.get("differs", False),
    )
