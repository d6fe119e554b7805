"""What sources of identities hand in, and what they are told (seed 001): keys, names and vectors."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.messages import Ratio
from dashboard_api.http.base_models import Body, DisplayName, Numbers, Time, View
from dashboard_api.http.image_indicators import NoImage
from dashboard_api.identities.enrollment_views import LookAlikeNote
from dashboard_api.training.views import SourceSystem as SourceName

MOST_ITEMS = 100_000
MOST_FACES = 256
"""Faces of one person in one item: the registry keeps the few most different good ones."""
MOST_LISTED = 100
"""Errors and look-alikes that an answer lists; all are counted."""

SourceSystem = Annotated[SourceName, NoImage]
"""Who hands in, for example `alfred_catalog`."""
ExternalId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$"), NoImage]
"""A person as the source knows them: any text without control characters, a slash too."""
Name = Annotated[DisplayName, Field(min_length=1)]


class SyncItem(Body):
    """`upsert` makes or renames the person with this key, `delete` removes them from every camera."""

    external_id: ExternalId
    action: Literal["upsert", "delete"]
    name: Name | None = None

    @model_validator(mode="after")
    def _named(self) -> "SyncItem":
        if self.action == "upsert" and self.name is None:
            raise ValueError("an upsert needs a name")
        return self


class SyncBody(Body):
    source_system: SourceSystem
    identities: Annotated[list[SyncItem], Field(max_length=MOST_ITEMS)]


class FaceBody(Body):
    """One vector: `embedding` as numbers, or `vector` as base64 of little-endian float32."""

    embedding: Numbers | None = None
    vector: Annotated[str, Field(max_length=8 * MAX_DIMENSION)] | None = None
    confidence: Ratio | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "FaceBody":
        if (self.vector is None) == (self.embedding is None):
            raise ValueError("a face has either an embedding (numbers) or a vector (base64)")
        return self


class PersonFaces(Body):
    """A person's faces. Without a name a person who is there keeps theirs."""

    external_id: ExternalId
    name: DisplayName | None = None
    faces: Annotated[list[FaceBody], Field(max_length=MOST_FACES)]


class IngestBody(Body):
    """`space` is the embedding space of all vectors; without it, the default one for faces."""

    source_system: SourceSystem
    space: SpaceId | None = None
    results: Annotated[list[PersonFaces], Field(max_length=MOST_ITEMS)]


class IngestLine(PersonFaces):
    """A line of `application/x-ndjson`: one person."""

    source_system: SourceSystem
    space: SpaceId | None = None


class ItemError(View):
    """Why an item was refused: the item at `index`, or on `line` (from 1), whose key is told if it is one."""

    index: int | None = None
    line: int | None = None
    external_id: str | None = None
    code: str
    detail: str


class LookAlikeView(LookAlikeNote):
    """The person of `external_id`, here `user_id` (null if refused for it), looks like `nearest_user_id`."""

    user_id: str | None
    external_id: str


class SyncAnswer(View):
    """What has been done. `errors` are the first hundred of `error_count` items that were refused."""

    success: bool = True
    created: int
    updated: int
    deleted: int
    errors: list[ItemError]
    error_count: int


class IngestAnswer(View):
    """What has been done: people found or made, vectors stored, and vectors skipped since the person holds
    them or better ones. Of errors and look-alikes the first hundred are listed."""

    success: bool = True
    identities_resolved: int
    embeddings_stored: int
    embeddings_skipped: int
    errors: list[ItemError]
    error_count: int
    look_alikes: list[LookAlikeView]
    look_alike_count: int


class ExternalRow(View):
    """A person under one key of a source. `identity_id` is the user id here."""

    identity_id: str
    external_id: str
    source_system: str
    name: str | None
    embedding_count: int
    first_seen: Time | None
    last_seen: Time | None


class ExternalPage(View):
    success: bool = True
    identities: list[ExternalRow]
    next_cursor: str | None
