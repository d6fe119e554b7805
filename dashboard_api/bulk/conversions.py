"""Convert between bodies of bulk requests and changes for the registry."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from broker_bridge.contract.embeddings import from_base64, to_array, to_base64
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.identities.model import EVERY_SITE, EnrollIdentity, Identity, Template
from broker_bridge.registry.matching.look_alikes import CheckedChange
from dashboard_api.http.problems import from_validation_errors
from dashboard_api.identities.conversions import default_space, to_enrollment, to_template
from dashboard_api.identities.enrollment_views import LookAlikeNote, to_look_alike_notes
from dashboard_api.identities.views import TemplateBody
from dashboard_api.settings import ApiSettings, Modality

from .views import BulkIdentity, BulkItem, BulkResult

REQUEST_INVALID = "request-invalid"
EXTERNAL_TAKEN = "external-taken"
IMPORT_SOURCE = "import"
# Normalising a unit vector again changes no component by more than this.
_ROUNDING = 1e-7
# A tuple, since the value to look up may be a list or an object, which a set cannot look up.
_MODALITIES: tuple[str, ...] = get_args(Modality)


def parse_identity(document: Any, settings: ApiSettings) -> BulkIdentity:
    """Return one identity of a bulk body; raise ContractError, which quotes no value."""
    try:
        return BulkIdentity.model_validate(_with_spaces(document, settings))
    except ValidationError as error:
        detail = from_validation_errors(error.errors()).detail
        # The name of an unknown field may contain half a surrogate pair, which no response can.
        raise ContractError(REQUEST_INVALID, detail.encode("utf-8", "replace").decode()[:500]) from error


def _with_spaces(document: Any, settings: ApiSettings) -> Any:
    """Return the document with a space for each template that names only its modality."""
    if not isinstance(document, dict) or not isinstance(document.get("templates"), list):
        return document
    return {**document, "templates": [_with_space(template, settings) for template in document["templates"]]}


def _with_space(template: Any, settings: ApiSettings) -> Any:
    if not isinstance(template, dict) or "space" in template or template.get("modality") not in _MODALITIES:
        return template
    rest = {name: value for name, value in template.items() if name != "modality"}
    return {**rest, "space": default_space(settings, template["modality"])}


def to_first_change(identity: BulkIdentity, dimensions: dict[str, int], by: str) -> EnrollIdentity:
    """Return the change without further external keys, of which a change has one.

    Raises ContractError.
    """
    templates = [_to_template(template, dimensions) for template in identity.templates]
    key = next(iter(identity.keys), None)
    return replace(to_enrollment(identity, templates, by), kind=identity.kind, external=key)


def _to_template(body: TemplateBody, dimensions: dict[str, int]) -> Template:
    template = to_template(body, dimensions, IMPORT_SOURCE)
    if body.vector is None:
        return template
    raw = from_base64(body.vector)
    if np.abs(to_array(raw) - to_array(template.vector)).max() > _ROUNDING:
        return template
    # An exported vector is imported byte for byte; else it becomes a second template beside the first.
    return replace(template, vector=raw)


def to_further_changes(identity: BulkIdentity, by: str) -> list[EnrollIdentity]:
    return [
        EnrollIdentity(identity.user_id, external=key, must_exist=True, by=by) for key in identity.keys[1:]
    ]


def check_keys(identity: BulkIdentity, owners: dict[str, str]) -> None:
    """Raise ContractError `external-taken` if a key belongs to another identity.

    `owners` is the user id by key. It gets the keys of `identity`, so that a later identity of the same
    request cannot take them.
    """
    for key in identity.keys:
        if owners.get(key.text, identity.user_id) != identity.user_id:
            raise ContractError(
                EXTERNAL_TAKEN, f"a key of {key.source_system} belongs to {owners[key.text]} already"
            )
    owners.update({key.text: identity.user_id for key in identity.keys})


def to_item(index: int, user_id: str, checked: CheckedChange, similar: Mapping[str, list[str]]) -> BulkItem:
    """Return the result of an applied or rejected change.

    `similar` are similar ids by the user ids of created identities.
    """
    outcome = checked.outcome
    look_alikes = to_look_alike_notes(checked.look_alikes) or None
    if outcome.error:
        return rejected_item(index, user_id, outcome.error, look_alikes)
    result: BulkResult = "created" if outcome.created else "changed" if outcome.changed else "unchanged"
    return BulkItem(
        index=index,
        user_id=user_id,
        result=result,
        version=outcome.result().version,
        look_alikes=look_alikes,
        not_compared=list(checked.not_compared) or None,
        similar_ids=similar.get(outcome.result().user_id),
    )


def rejected_item(
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


def to_exported(identity: Identity, templates: Sequence[Template] | None) -> Mapping[str, Any]:
    """Return an identity in the form of BulkIdentity.

    Without `templates` (None) the field is absent.
    """
    document: dict[str, Any] = {
        "user_id": identity.user_id,
        "display_name": identity.display_name,
        "flag": identity.flag,
        "kind": identity.kind,
        "sites": [] if EVERY_SITE in identity.sites else list(identity.sites),
        "consent": dict(identity.consent) or None,
        "external": [
            {"source_system": key.source_system, "external_id": key.external_id} for key in identity.external
        ]
        or None,
    }
    if templates is not None:
        document["templates"] = [
            {"space": template.space, "quality": template.quality, "vector": to_base64(template.vector)}
            for template in templates
        ]
    return {name: value for name, value in document.items() if value is not None}
