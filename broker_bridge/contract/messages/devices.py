"""Define the messages of devices: presence, health, configuration and commands."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from broker_bridge.contract.commands import CommandAnswer
from broker_bridge.contract.ids import RequestId, Session, SiteId, SpaceId
from broker_bridge.contract.spaces import Alignment, DetectorName, Dimension
from broker_bridge.contract.wire import (
    Name,
    OpenDocument,
    Sha256,
    ShortText,
    UpMessage,
    WireModel,
    WireTime,
)

from .enrollment import SyncPosition, SyncProgress
from .fields import Count, Sentence, Version, WireError


class DeviceStatus(UpMessage):
    """Presence of a device; also its last will.

    Retained. `lost` names the session that ended.
    """

    state: Literal["online", "stopped", "lost"]
    session: Session
    at: WireTime


class SpaceInfo(WireModel):
    """A space that a device embeds into, with the SHA-256 of its model file.

    `detector` and `alignment` are those that the device prepares faces with; absent for other modalities.
    """

    dimension: Dimension
    model_sha256: Sha256 | None = None
    detector: DetectorName | None = None
    alignment: Alignment | None = None


class DeviceInfo(UpMessage):
    """Site, software, hardware and spaces of a device.

    Retained, sent after every connect. `instance` is random and new at each start of the program; `address`
    is the program's own end of the connection. Two programs with one id show by them.
    """

    site_id: SiteId
    software: ShortText
    hardware: ShortText | None = None
    spaces: Annotated[dict[SpaceId, SpaceInfo], Field(max_length=16)]
    dev_mode: bool = False
    instance: ShortText | None = None
    address: ShortText | None = None


class Heartbeat(UpMessage):
    """Health of a device, every 30 s.

    Times in seconds or milliseconds as named, temperatures in degrees Celsius, sizes in MB. `problems` say
    why a device is `degraded`. Counted since the start: `refusals`, why recognitions made no event;
    `quality`, why faces were too poor to recognise; `frames`, what happened to the camera's pictures.
    """

    at: WireTime
    session: Session | None = None
    uptime_s: Annotated[float, Field(ge=0)]
    software: ShortText | None = None
    state: Literal["ok", "degraded"] | None = None
    problems: Annotated[list[WireError], Field(max_length=16)] = Field(default_factory=list)
    fps: Annotated[float, Field(ge=0)] | None = None
    inference_ms: Annotated[float, Field(ge=0)] | None = None
    camera: Literal["ok", "reopening", "ended"] | None = None
    temperatures: Annotated[dict[Name, float], Field(max_length=32)] = Field(default_factory=dict)
    memory_mb: Annotated[float, Field(ge=0)] | None = None
    disk_free_mb: Annotated[float, Field(ge=0)] | None = None
    outbox_depth: Count = 0
    outbox_dropped: Count = 0
    images_dropped: Count = 0
    rejected: Count = 0
    refusals: Annotated[dict[Name, Count], Field(max_length=32)] = Field(default_factory=dict)
    quality: Annotated[dict[Name, Count], Field(max_length=32)] = Field(default_factory=dict)
    frames: Annotated[dict[Name, Count], Field(max_length=32)] = Field(default_factory=dict)
    sync: SyncPosition | None = None
    syncing: SyncProgress | None = None
    clock_offset_ms: float | None = None


class DesiredConfig(WireModel):
    version: Version
    document: OpenDocument


class ReportedConfig(UpMessage):
    version: Version
    document: OpenDocument
    error: WireError | None = None


class Command(WireModel):
    """A command for a device, not executed past `expires_at`.

    The command's name defines `args`.
    """

    id: RequestId
    args: dict[str, JsonValue] = Field(default_factory=dict)
    expires_at: WireTime


class CommandResult(UpMessage):
    id: RequestId
    state: CommandAnswer
    detail: Sentence | None = None
