"""Bodies of bulk import and export."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from broker_bridge.registry.identities.model import ExternalKey, Kind
from dashboard_api.external.views import ExternalId, SourceSystem
from dashboard_api.http.base_models import Body, DocumentedAs, View, accept_any_item
from dashboard_api.identities.enrollment_views import LookAlikeNote
from dashboard_api.identities.views import IdentityBody

MAX_IDENTITIES = 500
"""Identities of one request, and of one page."""

BulkResult = Literal["created", "changed", "unchanged", "refused"]


class ExternalKeyBody(Body):
    source_system: SourceSystem
    external_id: ExternalId


def _check_unique(keys: list[ExternalKeyBody]) -> list[ExternalKeyBody]:
    if len({(key.source_system, key.external_id) for key in keys}) < len(keys):
        raise ValueError("a key stands twice")
    return keys


class BulkIdentity(IdentityBody):
    """An identity to import.

    A template may name its `modality` instead of `space`, which means the default space of the modality.
    Without `kind` a new identity is an employee, and an existing one stays as it is.
    """

    kind: Kind | None = None
    external: Annotated[list[ExternalKeyBody], Field(max_length=16), AfterValidator(_check_unique)] = Field(
        default_factory=list
    )

    @property
    def keys(self) -> list[ExternalKey]:
        return [ExternalKey(key.source_system, key.external_id) for key in self.external]


class BulkBody(Body):
    """The identities to import; with `dry_run` nothing is written.

    Each entry of `people` is checked by itself, against BulkIdentity.
    """

    people: Annotated[
        list[Annotated[Any, DocumentedAs(BulkIdentity)]],
        Field(min_length=1, max_length=MAX_IDENTITIES, json_schema_extra=accept_any_item),
    ]
    dry_run: bool = False


class BulkItem(View):
    """The result for the identity at `index`.

    `user_id` is absent if the given one is invalid. `code` and `detail` explain a rejection. `similar_ids`
    are other identities whose ids a person may mistake for that of a created one.
    """

    index: int
    user_id: str | None = None
    result: BulkResult
    version: int | None = None
    code: str | None = None
    detail: str | None = None
    look_alikes: list[LookAlikeNote] | None = None
    not_compared: list[str] | None = None
    similar_ids: list[str] | None = None


class BulkAnswer(View):
    """Counts by result, and one item per identity.

    A dry run gives what the results would have been.
    """

    created: int
    changed: int
    unchanged: int
    refused: int
    dry_run: bool
    items: list[BulkItem]

    @classmethod
    def from_items(cls, items: Sequence[BulkItem], *, dry_run: bool) -> "BulkAnswer":
        counts = dict.fromkeys(get_args(BulkResult), 0)
        for item in items:
            counts[item.result] += 1
        return cls(**counts, dry_run=dry_run, items=list(items))


class ExportPage(View):
    """Identities in the form of BulkBody, in order of user id."""

    items: list[Annotated[dict[str, Any], DocumentedAs(BulkIdentity)]]
    next_cursor: str | None
