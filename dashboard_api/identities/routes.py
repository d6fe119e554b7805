"""Routes of `/api/v1/identities`: enrolled identities, one by one and as a list."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from broker_bridge.registry.api_keys import ApiKey
from dashboard_api.http.base_models import UserId
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, cut_page, from_cursor, to_cursor
from dashboard_api.identities.conversions import (
    sites_to_confirm,
    to_confirmations,
    to_detail,
    to_enrollment,
    to_listed,
    to_patch,
    to_template,
    to_view,
)
from dashboard_api.identities.enrollment_views import IdentityEnrolled, to_look_alike_notes
from dashboard_api.identities.views import (
    Confirmations,
    IdentityBody,
    IdentityDetail,
    IdentityPage,
    IdentityPatch,
    IdentityView,
    MergeBody,
)
from dashboard_api.services.dependencies import (
    DevicesDep,
    IdentitiesDep,
    LookAlikesDep,
    MergesDep,
    OverviewDep,
    SimilarIdsDep,
    SpacesDep,
    VersionsDep,
)
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL, MAY_READ

router = APIRouter(prefix="/api/v1/identities", tags=["people"])


# The operation id is what generated clients call the operation by.
@router.get("", operation_id="list_people_api_v1_identities_get", dependencies=[MAY_READ])
async def list_identities(
    identities: IdentitiesDep,
    similar_ids: SimilarIdsDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    deleted: Annotated[
        Literal["only"] | bool,
        Query(description="`true`: deleted identities as well; `only`: them alone"),
    ] = False,
) -> IdentityPage:
    """List identities in order of user id."""
    after = from_cursor(cursor, 1) or [""]
    found = await identities.page(after=after[0], limit=limit + 1, deleted=deleted)
    page, next_cursor = cut_page(found, limit, lambda last: to_cursor(last.user_id))
    similar = await similar_ids.find_similar(page)
    return IdentityPage(items=[to_listed(identity, similar) for identity in page], next_cursor=next_cursor)


@router.post(
    "", dependencies=[JSON_BODY], responses={201: {"model": IdentityEnrolled, "description": "Created"}}
)
async def enroll(
    *,
    body: IdentityBody,
    look_alikes: LookAlikesDep,
    spaces: SpacesDep,
    similar_ids: SimilarIdsDep,
    key: Annotated[ApiKey, MAY_ENROLL],
    response: Response,
) -> IdentityEnrolled:
    """Create an identity or add to it.

    A template that the identity already has is not added again.
    """
    dimensions = await spaces.dimensions()
    templates = [to_template(template, dimensions, "api") for template in body.templates]
    checked = await look_alikes.enroll(to_enrollment(body, templates, key.name))
    response.status_code = 201 if checked.outcome.created else 200
    identity = checked.outcome.result()
    view = to_listed(identity, await similar_ids.find_similar([identity]))
    return IdentityEnrolled(
        **view.model_dump(),
        look_alikes=to_look_alike_notes(checked.look_alikes),
        not_compared=list(checked.not_compared),
    )


@router.get("/{user_id}", dependencies=[MAY_READ])
async def show(
    user_id: UserId,
    identities: IdentitiesDep,
    merges: MergesDep,
    overview: OverviewDep,
    similar_ids: SimilarIdsDep,
) -> IdentityDetail:
    """Show one identity, also a deleted one.

    Templates are listed without their vectors.
    """
    identity = await identities.get(user_id)
    notes = await overview.template_notes([user_id])
    merged = await merges.merged_user_ids(user_id)
    similar = await similar_ids.find_similar([identity])
    return to_detail(identity, notes.get(user_id, []), merged, similar)


@router.patch("/{user_id}", dependencies=[JSON_BODY])
async def change(
    user_id: UserId, body: IdentityPatch, identities: IdentitiesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityView:
    """Change name, flag, sites or consent."""
    return to_view(await identities.enroll(to_patch(user_id, body, key.name)))


@router.delete("/{user_id}")
async def delete(
    user_id: UserId, identities: IdentitiesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityView:
    """Soft-delete an identity.

    Every camera that has the identity receives the deletion; `confirmations` shows which have applied it.
    """
    return to_view(await identities.delete(user_id, by=key.name))


@router.post("/{user_id}/restore")
async def restore(
    user_id: UserId, identities: IdentitiesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityView:
    """Restore a soft-deleted identity as it was.

    Possible until the retention of tombstones has passed.
    """
    return to_view(await identities.restore(user_id, by=key.name))


@router.post("/{user_id}/merge", dependencies=[JSON_BODY])
async def merge(
    user_id: UserId, body: MergeBody, merges: MergesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityView:
    """Merge this identity into another one of the same person.

    The answer shows the other identity. `unmerge` undoes the merge.
    """
    return to_view(await merges.merge(user_id, body.into, by=key.name))


@router.post("/{user_id}/unmerge")
async def unmerge(user_id: UserId, merges: MergesDep, key: Annotated[ApiKey, MAY_CHANGE]) -> IdentityView:
    """Undo the merge of this identity into another."""
    return to_view(await merges.undo(user_id, by=key.name))


@router.get("/{user_id}/confirmations", dependencies=[MAY_READ])
async def show_confirmations(
    user_id: UserId, identities: IdentitiesDep, versions: VersionsDep, devices: DevicesDep
) -> Confirmations:
    """Show which devices have applied the last change of an identity."""
    identity = await identities.get(user_id)
    history = await versions.read()
    holders = await devices.holders_of(sites_to_confirm(identity), history.epoch)
    return to_confirmations(identity, history, holders)
