"""`/api/v1/identities`: people, their sites and templates, and which cameras have confirmed a change."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.ids import UserId
from broker_bridge.registry.api_keys import ApiKey
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, from_cursor, to_cursor
from dashboard_api.identities.conversions import (
    confirmations,
    sites_to_ask,
    to_detail,
    to_order,
    to_patch,
    to_template,
    to_view,
)
from dashboard_api.identities.enrollment_views import IdentityEnrolled, resemblances
from dashboard_api.identities.views import (
    Confirmations,
    IdentityBody,
    IdentityDetail,
    IdentityPage,
    IdentityPatch,
    IdentityView,
    MergeBody,
)
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL, MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1/identities", tags=["people"])


@router.get("", dependencies=[MAY_READ])
async def list_people(
    services: ServicesDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    deleted: Annotated[
        Literal["only"] | bool, Query(description="`true`: deleted people as well; `only`: them alone")
    ] = False,
) -> IdentityPage:
    """People in order of user id."""
    after = from_cursor(cursor, 1) or [""]
    people = await services.registry.identities.page(after=after[0], limit=limit + 1, deleted=deleted)
    shown = people[:limit]
    following = to_cursor(shown[-1].user_id) if len(people) > limit else None
    return IdentityPage(items=[to_view(person) for person in shown], next_cursor=following)


@router.post(
    "", dependencies=[JSON_BODY], responses={201: {"model": IdentityEnrolled, "description": "Made"}}
)
async def enroll(
    body: IdentityBody, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL], response: Response
) -> IdentityEnrolled:
    """Make a person or add to one. Templates the person holds already are not added twice."""
    dimensions = await services.registry.spaces.dimensions()
    templates = [to_template(template, dimensions, "api") for template in body.templates]
    checked = await services.registry.look_alikes.enroll(to_order(body, templates, key.name))
    response.status_code = 201 if checked.outcome.created else 200
    shown = to_view(checked.outcome.result())
    return IdentityEnrolled(**shown.model_dump(), look_alikes=resemblances(checked.look_alikes))


@router.get("/{user_id}", dependencies=[MAY_READ])
async def show(user_id: UserId, services: ServicesDep) -> IdentityDetail:
    """One person, also a deleted one, with what is known of the templates; never a vector."""
    person = await services.registry.identities.get(user_id)
    notes = await services.overview.template_notes([user_id])
    return to_detail(
        person, notes.get(user_id, []), await services.registry.identity_merges.merged_user_ids(user_id)
    )


@router.patch("/{user_id}", dependencies=[JSON_BODY])
async def change(
    user_id: UserId, body: IdentityPatch, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityView:
    """Change name, flag, sites or consent."""
    return to_view(await services.registry.identities.enroll(to_patch(user_id, body, key.name)))


@router.delete("/{user_id}")
async def delete(user_id: UserId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]) -> IdentityView:
    """Soft-delete: every camera that had the person hears of it; see `confirmations`."""
    return to_view(await services.registry.identities.delete(user_id, by=key.name))


@router.post("/{user_id}/restore")
async def restore(user_id: UserId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]) -> IdentityView:
    """Bring a soft-deleted person back as they were, until the retention of the deleted has passed."""
    return to_view(await services.registry.identities.restore(user_id, by=key.name))


@router.post("/{user_id}/merge", dependencies=[JSON_BODY])
async def merge(
    user_id: UserId, body: MergeBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityView:
    """Let this person go into another, who is the same one and is shown; `unmerge` takes it back."""
    return to_view(await services.registry.identity_merges.merge(user_id, body.into, by=key.name))


@router.post("/{user_id}/unmerge")
async def unmerge(user_id: UserId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]) -> IdentityView:
    """Take back the merge by which this person went into another."""
    return to_view(await services.registry.identity_merges.undo(user_id, by=key.name))


@router.get("/{user_id}/confirmations", dependencies=[MAY_READ])
async def show_confirmations(user_id: UserId, services: ServicesDep) -> Confirmations:
    """Which devices hold the person's last change, and which have yet to confirm it."""
    person = await services.registry.identities.get(user_id)
    history = await services.registry.versions.read()
    return confirmations(
        person, history, await services.registry.devices.applied_versions(sites_to_ask(person))
    )
