"""Bodies of identity sources (seed 001): external keys, names and vectors."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.messages import Ratio
from dashboard_api.http.base_models import Body, DisplayName, Normalised, Numbers, Time, View, accept_any_item
from dashboard_api.http.image_indicators import NoImage
from dashboard_api.http.visible_text import VISIBLE_TEXT, NoTags
from dashboard_api.identities.enrollment_views import ComparedView, LookAlikeNote
from dashboard_api.training.views import SourceSystem as SourceName

MAX_ITEMS = 100_000
MAX_FACES = 256
"""Faces of one identity in one item; the registry keeps the most different good ones."""
MAX_LISTED = 100
"""Errors and look-alikes that an answer lists; all are counted."""

SourceSystem = Annotated[SourceName, NoImage]
"""Name of a source, for example `alfred_catalog`."""
ExternalId = Annotated[
    str, Field(min_length=1, max_length=255, pattern=VISIBLE_TEXT), NoTags, Normalised, NoImage
]
"""Key of an identity in its source: text without control characters, in NFC and without blanks around."""
Name = Annotated[DisplayName, Field(min_length=1)]


class SyncItem(Body):
    """`upsert` creates or renames the identity of this key, `delete` deletes it."""

    external_id: ExternalId
    action: Literal["upsert", "delete"]
    name: Name | None = None

    @model_validator(mode="after")
    def _check_name(self) -> "SyncItem":
        if self.action == "upsert" and self.name is None:
            raise ValueError("an upsert needs a name")
        return self


class SyncBody(Body):
    source_system: SourceSystem
    identities: Annotated[list[SyncItem], Field(max_length=MAX_ITEMS, json_schema_extra=accept_any_item)]


class FaceBody(Body):
    """A vector: `embedding` is numbers, `vector` base64 of little-endian float32."""

    embedding: Numbers | None = None
    vector: Annotated[str, Field(max_length=8 * MAX_DIMENSION)] | None = None
    confidence: Ratio | None = None

    @model_validator(mode="after")
    def _check_form(self) -> "FaceBody":
        if (self.vector is None) == (self.embedding is None):
            raise ValueError("a face has either an embedding (numbers) or a vector (base64)")
        return self


class ExternalFaces(Body):
    """The faces of an identity; without a name it keeps the name on record."""

    external_id: ExternalId
    name: DisplayName | None = None
    faces: Annotated[list[FaceBody], Field(max_length=MAX_FACES)]


class IngestBody(Body):
    """Vectors in `space`, by default the configured space of faces."""

    source_system: SourceSystem
    space: SpaceId | None = None
    results: Annotated[list[ExternalFaces], Field(max_length=MAX_ITEMS, json_schema_extra=accept_any_item)]


class IngestLine(ExternalFaces):
    """A line of `application/x-ndjson`: one identity."""

    source_system: SourceSystem
    space: SpaceId | None = None


class ItemError(View):
    """Why the item at `index`, or on `line` (from 1), was rejected.

    `external_id` is absent if the given key is invalid.
    """

    index: int | None = None
    line: int | None = None
    external_id: str | None = None
    code: str
    detail: str


class LookAlikeView(LookAlikeNote):
    """The identity of `external_id` looks like `nearest_user_id`.

    `user_id` is the identity's own user id, or null if it was rejected as a look-alike.
    """

    user_id: str | None
    external_id: str


class SyncAnswer(View):
    """Counts of changes; `errors` lists the first hundred rejected items."""

    success: bool = True
    created: int
    updated: int
    deleted: int
    errors: list[ItemError]
    error_count: int


class IngestAnswer(ComparedView):
    """Counts of identities found or created, vectors stored and vectors skipped.

    A vector is skipped if the identity has it or better ones. The first hundred errors and look-alikes are
    listed.
    """

    success: bool = True
    identities_resolved: int
    embeddings_stored: int
    embeddings_skipped: int
    errors: list[ItemError]
    error_count: int
    look_alikes: list[LookAlikeView]
    look_alike_count: int


class ExternalRow(View):
    """An identity under one external key; `identity_id` is its user id."""

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
