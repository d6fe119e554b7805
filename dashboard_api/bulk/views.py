"""What bulk import takes and answers, and what export gives: people one by one, each with its own fate."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, Field, ValidationError

from broker_bridge.contract.embeddings import from_base64, to_array, to_base64
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.identities.model import (
    EVERY_SITE,
    EnrollIdentity,
    ExternalKey,
    Identity,
    Kind,
    Template,
)
from broker_bridge.registry.matching.look_alikes import CheckedChange
from dashboard_api.external.views import ExternalId, SourceSystem
from dashboard_api.http.base_models import Body, View
from dashboard_api.http.problems import from_validation_errors
from dashboard_api.identities.conversions import default_space, to_order, to_template
from dashboard_api.identities.enrollment_views import LookAlikeNote, resemblances
from dashboard_api.identities.views import IdentityBody, TemplateBody
from dashboard_api.settings import ApiSettings, Modality

MAX_PEOPLE = 500
"""People of one request, and of one page."""
REQUEST_INVALID = "request-invalid"
EXTERNAL_TAKEN = "external-taken"
IMPORTED = "import"
# Normalising a unit vector once more moves no number by more than this.
_ROUNDING = 1e-7

Result = Literal["created", "changed", "unchanged", "refused"]


class ExternalKeyBody(Body):
    source_system: SourceSystem
    external_id: ExternalId


def _each_once(keys: list[ExternalKeyBody]) -> list[ExternalKeyBody]:
    if len({(key.source_system, key.external_id) for key in keys}) < len(keys):
        raise ValueError("a key is named twice")
    return keys


class BulkIdentity(IdentityBody):
    """A person to import. A template may name its `modality` in place of `space`: its default space then.

    Without `kind` somebody new is an employee, and everybody else stays what they are.
    """

    kind: Kind | None = None
    external: Annotated[list[ExternalKeyBody], Field(max_length=16), AfterValidator(_each_once)] = Field(
        default_factory=list
    )

    @property
    def keys(self) -> list[ExternalKey]:
        return [ExternalKey(key.source_system, key.external_id) for key in self.external]


class BulkBody(Body):
    """`people` are checked one by one, each against BulkPerson; with `dry_run` nothing is written."""

    people: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MAX_PEOPLE,
            json_schema_extra={"items": {"type": "object", "required": ["user_id"]}},
        ),
    ]
    dry_run: bool = False


class BulkItem(View):
    """What became of number `index`. `user_id` is absent where it was no user id; `code` and `detail` say why
    somebody was refused."""

    index: int
    user_id: str | None = None
    result: Result
    version: int | None = None
    code: str | None = None
    detail: str | None = None
    look_alikes: list[LookAlikeNote] | None = None


class BulkAnswer(View):
    """How many came in, and each by number. In a dry run: what would have become of them."""

    created: int
    changed: int
    unchanged: int
    refused: int
    dry_run: bool
    items: list[BulkItem]

    @classmethod
    def of(cls, items: Sequence[BulkItem], *, dry_run: bool) -> "BulkAnswer":
        counts = dict.fromkeys(get_args(Result), 0)
        for item in items:
            counts[item.result] += 1
        return cls(**counts, dry_run=dry_run, items=list(items))


class ExportPage(View):
    """People as BulkBody takes them, in order of user id."""

    items: list[dict[str, Any]]
    next_cursor: str | None


def read_person(item: Any, settings: ApiSettings) -> BulkIdentity:
    """One of `people`; raises ContractError(`request-invalid`, `space-unknown`), which quotes no value."""
    try:
        return BulkIdentity.model_validate(_with_spaces(item, settings))
    except ValidationError as error:
        detail = from_validation_errors(error.errors()).detail
        # The name of an unknown field may hold half a surrogate pair, which no answer can.
        raise ContractError(REQUEST_INVALID, detail.encode("utf-8", "replace").decode()[:500]) from error


def _with_spaces(item: Any, settings: ApiSettings) -> Any:
    """`item` with each template that names only its modality moved to that modality's default space."""
    if not isinstance(item, dict) or not isinstance(item.get("templates"), list):
        return item
    return {**item, "templates": [_with_space(one, settings) for one in item["templates"]]}


def _with_space(template: Any, settings: ApiSettings) -> Any:
    if not isinstance(template, dict) or "space" in template or template.get("modality") not in _MODALITIES:
        return template
    rest = {name: value for name, value in template.items() if name != "modality"}
    return {**rest, "space": default_space(settings, template["modality"])}


# A tuple: what is asked for may be a list or an object, which no set can be asked about.
_MODALITIES: tuple[str, ...] = get_args(Modality)


def to_first_order(person: BulkIdentity, dimensions: dict[str, int], by: str) -> EnrollIdentity:
    """All of a person but for further external keys: an order holds one. Raises ContractError."""
    templates = [_to_template(one, dimensions) for one in person.templates]
    key = next(iter(person.keys), None)
    return replace(to_order(person, templates, by), kind=person.kind, external=key)


def _to_template(body: TemplateBody, dimensions: dict[str, int]) -> Template:
    template = to_template(body, dimensions, IMPORTED)
    if body.vector is None:
        return template
    raw = from_base64(body.vector)
    if np.abs(to_array(raw) - to_array(template.vector)).max() > _ROUNDING:
        return template
    # What a registry has given out comes back byte for byte, not as one more template beside it.
    return replace(template, vector=raw)


def to_further_orders(person: BulkIdentity, by: str) -> list[EnrollIdentity]:
    return [EnrollIdentity(person.user_id, external=key, must_exist=True, by=by) for key in person.keys[1:]]


def check_keys(person: BulkIdentity, holders: dict[str, str]) -> None:
    """Raise ContractError(`external-taken`) for a key that is somebody else's by `holders` (user id by key).

    Else the keys are the person's from now on: also of those who come later in the same request.
    """
    for key in person.keys:
        if holders.get(key.text, person.user_id) != person.user_id:
            raise ContractError(
                EXTERNAL_TAKEN, f"a key of {key.source_system} belongs to {holders[key.text]} already"
            )
    holders.update({key.text: person.user_id for key in person.keys})


def to_item(index: int, user_id: str, checked: CheckedChange) -> BulkItem:
    """What is answered about a person whose order was carried out or refused."""
    outcome = checked.outcome
    near = resemblances(checked.look_alikes) or None
    if outcome.error:
        return refused(index, user_id, outcome.error, near)
    result: Result = "created" if outcome.created else "changed" if outcome.changed else "unchanged"
    return BulkItem(
        index=index, user_id=user_id, result=result, version=outcome.result().version, look_alikes=near
    )


def refused(
    index: int, user_id: str | None, error: ContractError, look_alikes: list[LookAlikeNote] | None = None
) -> BulkItem:
    return BulkItem(
        index=index,
        user_id=user_id,
        result="refused",
        code=error.code,
        detail=error.detail,
        look_alikes=look_alikes,
    )


def to_exported(person: Identity, templates: Sequence[Template] | None) -> Mapping[str, Any]:
    """A person as `read_person` reads them; without `templates` (None) nothing is said of any."""
    said: dict[str, Any] = {
        "user_id": person.user_id,
        "display_name": person.display_name,
        "flag": person.flag,
        "kind": person.kind,
        "sites": [] if EVERY_SITE in person.sites else list(person.sites),
        "consent": dict(person.consent) or None,
        "external": [
            {"source_system": key.source_system, "external_id": key.external_id} for key in person.external
        ]
        or None,
    }
    if templates is not None:
        said["templates"] = [
            {"space": one.space, "vector": to_base64(one.vector), "quality": one.quality} for one in templates
        ]
    return {name: value for name, value in said.items() if value is not None}
