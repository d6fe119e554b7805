"""`/api/v1/identities/bulk`: many people in, each with an answer of their own; everybody out."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.ids import UserId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.matching.look_alikes import CheckedChange
from dashboard_api.bulk.views import (
    MAX_PEOPLE,
    BulkAnswer,
    BulkBody,
    BulkIdentity,
    BulkItem,
    ExportPage,
    check_keys,
    read_person,
    refused,
    to_exported,
    to_first_order,
    to_further_orders,
    to_item,
)
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, from_cursor, to_cursor
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL
from dashboard_api.services.services import Services, ServicesDep

router = APIRouter(prefix="/api/v1/identities", tags=["people"])

_USER_ID: TypeAdapter[str] = TypeAdapter(UserId)


@router.post("/bulk", dependencies=[JSON_BODY], response_model_exclude_none=True)
async def import_people(
    body: BulkBody, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL]
) -> BulkAnswer:
    """Make people or add to them, one by one: somebody who is refused holds up nobody else.

    The same once more changes nothing. A dry run carries all out and takes it back; what it cannot foresee is
    what others change in between, and photos, which have a request of their own.
    """
    items: dict[int, BulkItem] = {}
    read = _read(body.people, services, items)
    orders = await _to_orders(services, read, key.name, items)
    enroll = services.registry.dry_run if body.dry_run else services.registry.look_alikes
    judged = await enroll.judge_changes(list(orders.values()))
    done = dict(zip(orders, await enroll.carry_out(judged), strict=True))
    if not body.dry_run:
        await _add_further_keys(services, read, done, key.name)
    items |= {index: to_item(index, read[index].user_id, one) for index, one in done.items()}
    return BulkAnswer.of([items[index] for index in sorted(items)], dry_run=body.dry_run)


def _read(people: list[Any], services: Services, items: dict[int, BulkItem]) -> dict[int, BulkIdentity]:
    """Those of `people` who are well formed, by index; of the others `items` tells."""
    read = {}
    for index, item in enumerate(people):
        try:
            read[index] = read_person(item, services.settings)
        except ContractError as error:
            items[index] = refused(index, _user_id(item), error)
    return read


def _user_id(item: Any) -> str | None:
    try:
        return _USER_ID.validate_python(item.get("user_id") if isinstance(item, dict) else None)
    except ValidationError:
        return None


async def _to_orders(
    services: Services, people: dict[int, BulkIdentity], by: str, items: dict[int, BulkItem]
) -> dict[int, EnrollIdentity]:
    """Orders by index, for those whose templates and external keys will do; of the others `items` tells."""
    dimensions = await services.registry.spaces.dimensions()
    keys = [key.text for person in people.values() for key in person.keys]
    having = await services.registry.identity_store.find_by_external_key(None, keys) if keys else {}
    holders = {key: person.user_id for key, person in having.items()}
    orders = {}
    for index, person in people.items():
        try:
            orders[index] = to_first_order(person, dimensions, by)
            check_keys(person, holders)
        except ContractError as error:
            orders.pop(index, None)
            items[index] = refused(index, person.user_id, error)
    return orders


async def _add_further_keys(
    services: Services, people: dict[int, BulkIdentity], done: dict[int, CheckedChange], by: str
) -> None:
    """Give people who came in their second and later external keys; `done` tells the outcome of both."""
    for index, checked in done.items():
        further = [] if checked.outcome.error else to_further_orders(people[index], by)
        if further:
            outcomes = await services.registry.identities.apply(further)
            error = next((one.error for one in outcomes if one.error), None)
            both = replace(checked.outcome, identity=outcomes[-1].identity, error=error)
            done[index] = replace(checked, outcome=both)


@router.get("/bulk", responses={200: {"model": ExportPage, "description": "A page of people"}})
async def export_people(
    services: ServicesDep,
    key: Annotated[ApiKey, MAY_CHANGE],
    limit: Annotated[int, Query(ge=1, le=MAX_PEOPLE, description="Most people of a page")] = 200,
    cursor: Cursor = None,
    vectors: Annotated[bool, Query(description="With templates, which are biometric data")] = True,
) -> JSONResponse:
    """Everybody who is not deleted, in order of user id and as POST takes them. It leaves an audit entry."""
    after = from_cursor(cursor, 1)
    if after is None:
        await _leave_entry(services, key.name, vectors=vectors)
    people = await services.registry.identities.page(after=after[0] if after else "", limit=limit + 1)
    shown = people[:limit]
    held = await services.registry.identities.templates_of([p.user_id for p in shown]) if vectors else None
    items = [to_exported(p, None if held is None else held.get(p.user_id, [])) for p in shown]
    following = to_cursor(shown[-1].user_id) if len(people) > limit else None
    return JSONResponse({"items": items, "next_cursor": following})


async def _leave_entry(services: Services, who: str, *, vectors: bool) -> None:
    entry = AuditEntry(
        who=who, what="people.exported", subject="*", at=services.now(), after={"vectors": vectors}
    )

    async def record(session: Any) -> None:
        await services.registry.audit.record(entry, session)

    await services.registry.mongo.transact(record)
