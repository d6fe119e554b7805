"""Routes of `/api/v1/identities/bulk`: import and export many identities."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.identities.service import Identities
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.matching.look_alikes import CheckedChange
from dashboard_api.bulk.conversions import (
    check_keys,
    parse_identity,
    rejected_item,
    to_exported,
    to_first_change,
    to_further_changes,
    to_item,
)
from dashboard_api.bulk.views import MAX_IDENTITIES, BulkAnswer, BulkBody, BulkIdentity, BulkItem, ExportPage
from dashboard_api.http.base_models import UserId
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, cut_page, from_cursor, to_cursor
from dashboard_api.services.dependencies import (
    AuditDep,
    ClockDep,
    DryRunDep,
    IdentitiesDep,
    IdentityStoreDep,
    LookAlikesDep,
    SettingsDep,
    SimilarIdsDep,
    SpacesDep,
)
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL
from dashboard_api.settings import ApiSettings

router = APIRouter(prefix="/api/v1/identities", tags=["people"])

_USER_ID: TypeAdapter[str] = TypeAdapter(UserId)


@router.post(
    "/bulk",
    operation_id="import_people_api_v1_identities_bulk_post",
    dependencies=[JSON_BODY],
    response_model_exclude_none=True,
)
async def import_identities(
    *,
    body: BulkBody,
    settings: SettingsDep,
    spaces: SpacesDep,
    store: IdentityStoreDep,
    identities: IdentitiesDep,
    look_alikes: LookAlikesDep,
    dry_run: DryRunDep,
    similar_ids: SimilarIdsDep,
    key: Annotated[ApiKey, MAY_ENROLL],
) -> BulkAnswer:
    """Create many identities or add to them.

    Each identity is decided by itself: a rejected one stops no other. The same request again changes nothing.
    A dry run applies all changes and takes them back. It cannot foresee changes of others in between, nor
    photos, which have a request of their own.
    """
    items: dict[int, BulkItem] = {}
    parsed = _parse(body.people, settings, items)
    changes = await _to_changes(parsed, await spaces.dimensions(), store, key.name, items)
    checker = dry_run if body.dry_run else look_alikes
    judged = await checker.judge_changes(list(changes.values()))
    checked = dict(zip(changes, await checker.apply_judged(judged), strict=True))
    if not body.dry_run:
        await _add_further_keys(identities, parsed, checked, key.name)
    created = [change.outcome.result() for change in checked.values() if change.outcome.created]
    similar = await similar_ids.find_similar(created)
    items |= {
        index: to_item(index, parsed[index].user_id, change, similar) for index, change in checked.items()
    }
    return BulkAnswer.from_items([items[index] for index in sorted(items)], dry_run=body.dry_run)


def _parse(
    identities: list[Any], settings: ApiSettings, items: dict[int, BulkItem]
) -> dict[int, BulkIdentity]:
    """Return the well-formed identities by index; add the others to `items`."""
    parsed = {}
    for index, identity in enumerate(identities):
        try:
            parsed[index] = parse_identity(identity, settings)
        except ContractError as error:
            items[index] = rejected_item(index, _user_id_of(identity), error)
    return parsed


def _user_id_of(identity: Any) -> str | None:
    try:
        return _USER_ID.validate_python(identity.get("user_id") if isinstance(identity, dict) else None)
    except ValidationError:
        return None


async def _to_changes(
    parsed: dict[int, BulkIdentity],
    dimensions: dict[str, int],
    store: IdentityStore,
    by: str,
    items: dict[int, BulkItem],
) -> dict[int, EnrollIdentity]:
    """Return the changes by index; add rejected identities to `items`."""
    keys = [key.text for identity in parsed.values() for key in identity.keys]
    found = await store.find_by_external_key(None, keys) if keys else {}
    owners = {key: identity.user_id for key, identity in found.items()}
    changes = {}
    for index, identity in parsed.items():
        try:
            changes[index] = to_first_change(identity, dimensions, by)
            check_keys(identity, owners)
        except ContractError as error:
            changes.pop(index, None)
            items[index] = rejected_item(index, identity.user_id, error)
    return changes


async def _add_further_keys(
    identities: Identities, parsed: dict[int, BulkIdentity], checked: dict[int, CheckedChange], by: str
) -> None:
    """Add second and later external keys, and their outcome to `checked`."""
    for index, first in checked.items():
        further = [] if first.outcome.error else to_further_changes(parsed[index], by)
        if further:
            outcomes = await identities.apply(further)
            error = next((outcome.error for outcome in outcomes if outcome.error), None)
            both = replace(first.outcome, identity=outcomes[-1].identity, error=error)
            checked[index] = replace(first, outcome=both)


@router.get(
    "/bulk",
    operation_id="export_people_api_v1_identities_bulk_get",
    responses={200: {"model": ExportPage, "description": "A page of identities"}},
)
async def export_identities(
    *,
    identities: IdentitiesDep,
    audit: AuditDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_CHANGE],
    limit: Annotated[int, Query(ge=1, le=MAX_IDENTITIES, description="Most identities of a page")] = 200,
    cursor: Cursor = None,
    vectors: Annotated[bool, Query(description="Include templates, which are biometric data")] = True,
) -> JSONResponse:
    """Export all identities that are not deleted.

    They come in order of user id and in the form that POST accepts. The first page leaves an audit entry.
    """
    after = from_cursor(cursor, 1)
    if after is None:
        what = "people.exported"
        entry = AuditEntry(who=key.name, what=what, subject="*", at=now(), after={"vectors": vectors})
        await audit.record(entry, None)
    found = await identities.page(after=after[0] if after else "", limit=limit + 1)
    page, next_cursor = cut_page(found, limit, lambda last: to_cursor(last.user_id))
    templates = await identities.templates_of([identity.user_id for identity in page]) if vectors else None
    items = [
        to_exported(identity, None if templates is None else templates.get(identity.user_id, []))
        for identity in page
    ]
    return JSONResponse({"items": items, "next_cursor": next_cursor})
