"""What the API takes and shows: one model per body and per answer."""

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, PlainSerializer

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import DeviceId, SiteId, SpaceId, UserId
from broker_bridge.contract.messages import Flag, Ratio
from broker_bridge.contract.wire import OpenDocument, format_time
from broker_bridge.registry.devices.commands import State
from broker_bridge.registry.identities.model import Kind
from dashboard_api.settings import Modality

from .picture_guard import NoPicture

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
# Vectors are read without a check for NaN here: the contract's own check says it in better words.
Numbers = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION)]
DisplayName = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$"), NoPicture]
SourceNode = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
MAX_ARGS_BYTES = 16 * 1024
MAX_TEMPLATES = 64
"""Templates of one person: with more, the person would not fit into one message on the wire."""


class Body(BaseModel):
    """A request body: an unknown field is refused, so that a typing error is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


# Seed 000


class IdentityPush(Body):
    """One person's embedding in one modality; it takes the place of the one before."""

    name: UserId
    modality: Modality
    embedding: Numbers
    source_node: SourceNode | None = None


class IdentityRow(View):
    """One row per name and modality, without the vector."""

    name: str
    modality: str
    embedding_dim: int
    source_node: str | None
    created_at: Time | None
    updated_at: Time | None


class IdentityChangeView(View):
    name: str
    modality: str | None
    version: int


# People


class TemplateBody(Body):
    """A vector as base64 of little-endian float32, or as a list of numbers; any length but zero will do."""

    space: SpaceId
    vector: Annotated[str, Field(max_length=8 * MAX_DIMENSION)] | None = None
    embedding: Numbers | None = None
    quality: Ratio | None = None


class IdentityBody(Body):
    user_id: UserId
    display_name: DisplayName | None = None
    flag: Flag | None = None
    sites: Annotated[list[SiteId], Field(max_length=1000)] | None = None
    consent: dict[Modality, bool] | None = None
    templates: Annotated[list[TemplateBody], Field(max_length=MAX_TEMPLATES)] = Field(default_factory=list)


class IdentityPatch(Body):
    """What is named changes, null clears it; without sites a person belongs to every site.

    `consent` says per modality whether it may be sent to cameras; one that is not named stays as it was.
    """

    display_name: DisplayName | None = None
    flag: Flag | None = None
    sites: Annotated[list[SiteId], Field(max_length=1000)] | None = None
    consent: dict[Modality, bool] | None = None


class MergeBody(Body):
    into: UserId


class TemplateCountView(View):
    space: str
    count: int


class ExternalKeyView(View):
    source_system: str
    external_id: str


class IdentityView(View):
    """A person as of `version`; `sites` is `["*"]` for every site.

    `consent` says per modality whether it is sent to cameras, `external` under which keys other systems know
    the person, `merged_into` whom a merged person went into. Of an `erased` one nothing else is left.
    """

    user_id: str
    version: int
    display_name: str | None
    flag: str | None
    kind: Kind
    sites: list[str]
    templates: list[TemplateCountView]
    consent: dict[str, bool]
    external: list[ExternalKeyView]
    merged_into: str | None
    deleted: bool
    erased: bool
    created_at: Time | None
    updated_at: Time | None


class IdentityPage(View):
    items: list[IdentityView]
    next_cursor: str | None


class TemplateView(View):
    template_id: str
    space: str
    quality: float | None
    source: str | None
    created_at: Time


class IdentityDetail(IdentityView):
    """`merged` are the user ids of those who went into the person."""

    template_list: list[TemplateView]
    merged: list[str]


class PhotoResult(View):
    user_id: str
    version: int
    space: str
    quality: float


class Confirmations(View):
    """Which devices hold the person's last change, a deletion too."""

    user_id: str
    version: int
    deleted: bool
    confirmed: list[str]
    waiting: list[str]
    confirmed_count: int
    device_count: int
    summary: str


# Commands and audit


def _check_size(args: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        size = len(json.dumps(args, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a surrogate pair, which is no character") from error
    if size > MAX_ARGS_BYTES:
        raise ValueError(f"the arguments of a command have at most {MAX_ARGS_BYTES} bytes as JSON")
    return args


class CommandBody(Body):
    device_id: DeviceId
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    args: Annotated[OpenDocument, AfterValidator(_check_size)] = Field(default_factory=dict)
    expires_in_seconds: Annotated[int, Field(ge=1, le=7 * 86_400)] = 60


class CommandView(View):
    """A command. `waiting`: not sent yet, its device is away; `sent`: not answered yet; then its answer."""

    id: str
    device_id: str
    name: str
    args: dict[str, Any]
    state: State
    detail: str | None
    requested_by: str
    created_at: Time
    expires_at: Time
    sent_at: Time | None
    answered_at: Time | None


class CommandPage(View):
    items: list[CommandView]
    next_cursor: str | None


class AuditView(View):
    """`who` is the name of an API key, or `device:<id>`; `before` and `after` are what `what` changed."""

    id: str
    at: Time
    who: str
    what: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(View):
    items: list[AuditView]
    next_cursor: str | None


# Events


class EventPage(View):
    """Events as on the wire (seed 003) without their image, with `site_id`, `received_at`, `has_image`."""

    items: list[dict[str, Any]]
    next_cursor: str | None
