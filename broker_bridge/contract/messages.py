"""Every message of wire contract version 1, one frozen model each. `channels` says where each travels."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from .ids import DeviceId, Epoch, EventId, RequestId, Session, SiteId, SpaceId, TemplateId, UserId
from .wire import Name, OpenDocument, UpMessage, WireModel, WireTime, WireVector

Count = Annotated[int, Field(ge=0, lt=2**63)]
Version = Annotated[int, Field(ge=0, lt=2**63)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Code = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Sentence = Annotated[str, Field(max_length=1000)]
ShortText = Annotated[str, Field(max_length=128)]
Flag = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
EnrollmentPolicy = Literal["closed", "visitors"]
"""Whether cameras of a site register people whom nobody knows: `visitors`, or not: `closed`."""


# Presence


class DeviceStatus(UpMessage):
    """Retained, and the last will: `lost` with the session it belongs to."""

    state: Literal["online", "stopped", "lost"]
    session: Session
    at: WireTime


class SpaceInfo(WireModel):
    """A space that a device embeds into, with the SHA-256 of the model file behind it."""

    dimension: Annotated[int, Field(ge=1, le=4096)]
    model_sha256: Sha256 | None = None


class DeviceInfo(UpMessage):
    """What a device is. Retained, sent after every connect."""

    site_id: SiteId
    software: ShortText
    hardware: ShortText | None = None
    spaces: Annotated[dict[SpaceId, SpaceInfo], Field(max_length=16)]
    dev_mode: bool = False


class SpaceDigest(WireModel):
    """How many templates of a space are held, and their digest (`digest.Digest.hex`)."""

    count: Count
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class SpaceHead(SpaceDigest):
    """A space in a site's head; `model_sha256` is that of the model file which the registry has on record."""

    model_sha256: Sha256 | None = None


SpaceDigests = Annotated[dict[SpaceId, SpaceDigest], Field(max_length=16)]


class SyncPosition(WireModel):
    """Where a device stands in the history of its site."""

    epoch: Epoch
    version: Version
    spaces: SpaceDigests


class SyncProgress(WireModel):
    """A sync under way: history told up to `version` of `head_version`, `people` staged so far by a reset."""

    version: Version
    head_version: Version
    people: Count = 0


class WireError(WireModel):
    code: Code
    detail: Sentence


class Heartbeat(UpMessage):
    """Every 30 s. Times in seconds or milliseconds as named, temperatures in degrees Celsius, sizes in MB.

    `problems` say why a device is `degraded`. `refusals` count why recognitions made no event, `quality` why
    faces were too poor to recognise, `frames` what became of the camera's pictures; all since the start.
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


# Events


class Event(UpMessage):
    """A validated recognition (seed 003), key `(device_id, event_id)`. `wire.decode_image` reads `image`."""

    event_id: EventId
    device_id: DeviceId
    user_id: UserId | None = None
    event_type: Literal["facial_id", "emotion", "visit", "unknown"]
    emotion_code: Annotated[str, Field(pattern=r"^EV2\.[0-9]{1,3}$")] | None = None
    timestamp: WireTime
    confidence: Ratio
    image: str | None = None
    metadata: OpenDocument = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_of_the_type(self) -> "Event":
        if (self.user_id is None) != (self.event_type == "unknown"):
            raise ValueError("every event names a user_id, except `unknown`, which has none")
        if (self.emotion_code is None) == (self.event_type == "emotion"):
            raise ValueError("an `emotion` event names its emotion_code, no other event does")
        return self


class Rejection(WireModel):
    event_id: Annotated[str, Field(max_length=128)]
    code: Code
    detail: Sentence


class Receipts(WireModel):
    """The bridge's word on events: `stored` settles them (also a repeat), `rejected` will never be stored."""

    stored: list[EventId] = Field(default_factory=list)
    rejected: list[Rejection] = Field(default_factory=list)


# Cross-camera tracking


Pixels = Annotated[int, Field(ge=0, lt=2**31)]

BoundingBox = Annotated[list[float], Field(min_length=4, max_length=4)]
"""`[x, y, width, height]` in pixels of the frame; part of it may lie outside."""
MAX_FRAME_SIDE = 16_384
"""Pixels: no larger box is believed where an observation does not say how large its frame is."""


class Observation(UpMessage):
    """A face seen on one track, for the tracker (seed 004)."""

    track_id: ShortText
    bbox: BoundingBox
    frame_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None
    space: SpaceId
    vector: WireVector
    quality: Ratio | None = None
    captured_at: WireTime

    @model_validator(mode="after")
    def _box_fits_frame(self) -> "Observation":
        x, y, width, height = self.bbox
        if not (width > 0 and height > 0):
            raise ValueError("a bbox is [x, y, width, height] with a width and a height above 0")
        frame_width, frame_height = self.frame_size or (MAX_FRAME_SIDE, MAX_FRAME_SIDE)
        if width > frame_width or height > frame_height:
            raise ValueError(f"a bbox is no larger than its frame of {frame_width} x {frame_height} pixels")
        if not (-width < x < frame_width and -height < y < frame_height):
            raise ValueError("a bbox lies within its frame, if only with a part of it")
        return self


class Assignment(WireModel):
    """The tracker's answer: who that track is across all cameras.

    `similarity` is the mean cosine between the face and those that the person is known by; None for somebody
    new, and for one who was not told by the face alone.
    """

    track_id: ShortText
    global_id: Version
    user_id: UserId | None = None
    similarity: Annotated[float, Field(ge=-1, le=1)] | None = None


# Enrollment sync


class SyncHead(WireModel):
    """The site's newest version, and what all its devices have to know. Retained and tiny."""

    epoch: Epoch
    version: Version
    horizon: Version
    spaces: dict[SpaceId, SpaceHead]
    enrollment_policy: EnrollmentPolicy | None = None


class SyncRequest(UpMessage):
    """A device asks for what has changed since `since_version` (0: everything) in `spaces` (None: in all).

    `site_id` is where the device believes it is; a registered device may leave it out.
    `reset_head_version` is set while a reset is under way: the `head_version` of its first page. It lets the
    registry tell a reset that goes on from a cursor that fell below the horizon.
    """

    request_id: RequestId
    site_id: SiteId | None = None
    epoch: Epoch | None = None
    since_version: Version = 0
    limit: Annotated[int, Field(ge=1, le=5000)] = 200
    spaces: Annotated[list[SpaceId], Field(max_length=16)] | None = None
    reset_head_version: Version | None = None


class WireTemplate(WireModel):
    template_id: TemplateId
    space: SpaceId
    vector: WireVector
    quality: Ratio | None = None


class Upsert(WireModel):
    """One person's whole state in a site: these templates and no others."""

    user_id: UserId
    version: Version
    flag: Flag | None = None
    display_name: Annotated[str, Field(max_length=256)] | None = None
    templates: list[WireTemplate]


class Removal(WireModel):
    """A person who was deleted, or who left the site."""

    user_id: UserId
    version: Version


class SyncPage(WireModel):
    """The answer to a SyncRequest: all changes in `(from_version, to_version]`.

    `reset` on the first page of a full snapshot: what it does not name goes away at its end. With `error`
    nothing else counts.
    """

    request_id: RequestId
    epoch: Epoch
    from_version: Version
    to_version: Version
    head_version: Version
    reset: bool = False
    upserts: list[Upsert] = Field(default_factory=list)
    removals: list[Removal] = Field(default_factory=list)
    done: bool
    error: WireError | None = None


class SyncDelta(WireModel):
    """A live change: everything that happened to the site in `(prev_version, version]`."""

    epoch: Epoch
    prev_version: Version
    version: Version
    upserts: list[Upsert] = Field(default_factory=list)
    removals: list[Removal] = Field(default_factory=list)


class SyncApplied(UpMessage):
    """What a device holds after it committed a change: the confirmation of deletions. Retained."""

    epoch: Epoch
    version: Version
    spaces: SpaceDigests
    duration_ms: Annotated[float, Field(ge=0)]
    error: WireError | None = None


# Registration at the edge


class RegisterIdentity(UpMessage):
    request_id: RequestId
    user_id: UserId | None = None
    display_name: Annotated[str, Field(max_length=256)] | None = None
    space: SpaceId
    vector: WireVector
    quality: Ratio | None = None
    kind: Literal["employee", "visitor"]


class Registered(WireModel):
    """The registry's decision; for `exists` the `user_id` is that of the person the face belongs to."""

    request_id: RequestId
    result: Literal["created", "exists", "rejected"]
    user_id: UserId | None = None
    similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    error: WireError | None = None


# Configuration and commands


class DesiredConfig(WireModel):
    version: Version
    document: OpenDocument


class ReportedConfig(UpMessage):
    version: Version
    document: OpenDocument
    error: WireError | None = None


class Command(WireModel):
    """An order to a device; past `expires_at` it is not carried out. `args` is as the named command says."""

    id: RequestId
    args: dict[str, JsonValue] = Field(default_factory=dict)
    expires_at: WireTime


class CommandResult(UpMessage):
    id: RequestId
    state: Literal["accepted", "done", "failed", "expired", "unknown"]
    detail: Sentence | None = None
