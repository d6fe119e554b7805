"""`/api/v1/identities`: people, their sites and templates, and which cameras have confirmed a change."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.ids import UserId
from broker_bridge.registry.identities import PERSON_UNKNOWN
from broker_bridge.registry.people import Person
from dashboard_api.deps import JSON_BODY, Services, ServicesDep
from dashboard_api.paging import Cursor, Limit, from_cursor, to_cursor
from dashboard_api.people import (
    add_templates,
    confirmations,
    sites_to_ask,
    to_detail,
    to_order,
    to_patch,
    to_template,
    to_view,
)
from dashboard_api.security import MAY_CHANGE, MAY_ENROLL, MAY_READ
from dashboard_api.views import Confirmations, PersonBody, PersonDetail, PersonPage, PersonPatch, PersonView

router = APIRouter(prefix="/api/v1/identities", tags=["people"])


@router.get("", dependencies=[MAY_READ])
async def list_people(
    services: ServicesDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    deleted: Annotated[bool, Query(description="Show deleted people as well")] = False,
) -> PersonPage:
    """People in order of user id."""
    after = from_cursor(cursor, 1) or [""]
    people = await services.registry.identities.page(after=after[0], limit=limit + 1, deleted=deleted)
    shown = people[:limit]
    following = to_cursor(shown[-1].user_id) if len(people) > limit else None
    return PersonPage(items=[to_view(person) for person in shown], next_cursor=following)


@router.post(
    "", dependencies=[MAY_ENROLL, JSON_BODY], responses={201: {"model": PersonView, "description": "Made"}}
)
async def enroll(body: PersonBody, services: ServicesDep, response: Response) -> PersonView:
    """Make a person or add to one. Templates the person holds already are not added twice."""
    dimensions = await services.registry.spaces.dimensions()
    templates = [to_template(template, dimensions, "api") for template in body.templates]
    known = await _known(services, body.user_id)
    person = await add_templates(services.registry, to_order(body), templates, known)
    response.status_code = 201 if known is None or known.deleted else 200
    return to_view(person)


@router.get("/{user_id}", dependencies=[MAY_READ])
async def show(user_id: UserId, services: ServicesDep) -> PersonDetail:
    """One person, also a deleted one, with what is known of the templates; never a vector."""
    person = await services.registry.identities.get(user_id)
    notes = await services.overview.template_notes([user_id])
    return to_detail(person, notes.get(user_id, []))


@router.patch("/{user_id}", dependencies=[MAY_CHANGE, JSON_BODY])
async def change(user_id: UserId, body: PersonPatch, services: ServicesDep) -> PersonView:
    """Change name, flag or sites."""
    return to_view(await services.registry.identities.enroll(to_patch(user_id, body)))


@router.delete("/{user_id}", dependencies=[MAY_CHANGE])
async def delete(user_id: UserId, services: ServicesDep) -> PersonView:
    """Soft-delete: every camera that had the person hears of it; see `confirmations`."""
    return to_view(await services.registry.identities.delete(user_id))


@router.get("/{user_id}/confirmations", dependencies=[MAY_READ])
async def show_confirmations(user_id: UserId, services: ServicesDep) -> Confirmations:
    """Which devices hold the person's last change, and which have yet to confirm it."""
    person = await services.registry.identities.get(user_id)
    history = await services.registry.versions.read()
    return confirmations(person, history, await services.registry.devices.applied(sites_to_ask(person)))


async def _known(services: Services, user_id: str) -> Person | None:
    try:
        return await services.registry.identities.get(user_id)
    except ContractError as error:
        if error.code != PERSON_UNKNOWN:
            raise
        return None
