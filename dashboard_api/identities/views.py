"""Request and response bodies of the identity routes."""

from typing import Annotated

from pydantic import Field

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import SiteId, SpaceId
from broker_bridge.contract.messages import Flag, Ratio
from broker_bridge.registry.identities.model import Kind
from dashboard_api.http.base_models import Body, DisplayName, Numbers, Time, UserId, View
from dashboard_api.settings import Modality

SourceNode = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
MAX_TEMPLATES = 64
"""Templates of one identity; more would not fit into one message on the wire."""


class IdentityPush(Body):
    """An embedding of an identity in one modality; it replaces the one before."""

    name: UserId
    modality: Modality
    embedding: Numbers
    source_node: SourceNode | None = None


class IdentityRow(View):
    """An identity in one modality, without the vector."""

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


class TemplateBody(Body):
    """A vector as base64 of little-endian float32 or as numbers.

    It is normalised; only the zero vector is rejected.
    """

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
    """The fields to change; null clears a field.

    Without sites an identity belongs to every site. `consent` states per modality whether its templates may
    be sent to cameras; modalities that are absent stay as they are.
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
    """An identity as of `version`; `sites` is `["*"]` for every site.

    `consent` states per modality whether its templates are sent to cameras. `external` lists the keys of
    other systems. `merged_into` is the user id that a merged identity is part of. An `erased` identity has no
    other data left.
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


class ListedIdentity(IdentityView):
    """An identity of a list.

    `similar_ids` are up to five user ids of other identities that a person may mistake for it: ids that
    differ in case, accents or separators alone, the keys of other systems included.
    """

    similar_ids: list[str]


class IdentityPage(View):
    items: list[ListedIdentity]
    next_cursor: str | None


class TemplateView(View):
    template_id: str
    space: str
    quality: float | None
    source: str | None
    created_at: Time


class IdentityDetail(ListedIdentity):
    """An identity with its templates; `merged` lists the user ids merged into it."""

    template_list: list[TemplateView]
    merged: list[str]


class PhotoWarningView(View):
    """What would make a better photo; the photo was used."""

    code: str
    detail: str


class PhotoResult(View):
    user_id: str
    version: int
    space: str
    quality: float
    warnings: list[PhotoWarningView] = Field(default_factory=list)


class Confirmations(View):
    """The devices that have applied the last change, and those that have not yet."""

    user_id: str
    version: int
    deleted: bool
    confirmed: list[str]
    waiting: list[str]
    confirmed_count: int
    device_count: int
    summary: str
