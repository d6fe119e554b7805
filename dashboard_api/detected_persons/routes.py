"""Serve `/api/detected-persons`: persons seen by cameras, and where (seed 004)."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from broker_bridge.contract.ids import DeviceId, SiteId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.detected_persons.queries import DetectedPersonFilter, Period
from broker_bridge.registry.detected_persons.removal import ALL_SUBJECTS
from dashboard_api.detected_persons.queries import (
    active_since,
    centroid_of,
    export_lines,
    find_matches,
    view_context_of,
    view_of,
)
from dashboard_api.detected_persons.views import (
    MOST_ID,
    ActivePersonList,
    DeletedPersons,
    DetectedPersonDetail,
    DetectedPersonPage,
    DetectedPersonView,
    FaceMatches,
    FaceQuery,
    IntoBody,
    LinkBody,
    NameBody,
    TrailPage,
    to_active,
    to_detail,
    to_segment,
    to_view,
)
from dashboard_api.events.filters import Moment
from dashboard_api.http.base_models import UserId
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import (
    Limit,
    MomentCursor,
    PersonCursor,
    cursor_invalid,
    from_moment_cursor,
    to_moment_cursor,
)
from dashboard_api.http.problems import Problem
from dashboard_api.services.security import MAY_ADMINISTER, MAY_CHANGE, MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/detected-persons", tags=["detected persons"])

GlobalId = Annotated[int, Path(ge=1, le=MOST_ID)]


@router.get("/active", dependencies=[MAY_READ])
async def list_active(services: ServicesDep, limit: Limit = 1000) -> ActivePersonList:
    """Return the persons that cameras see now, newest first.

    `active_persons` counts those beyond `limit` too.
    """
    queries = services.registry.detected_person_queries
    count, shown = await queries.active_groups(active_since(services), limit)
    context = await view_context_of(services, shown)
    ids = [global_id for group in shown for global_id in group.ids]
    present_since = await queries.present_since(ids, context.active_since)
    persons = [to_active(group, context, present_since) for group in shown]
    return ActivePersonList(active_persons=count, persons=persons)


@router.post("/search-by-face", dependencies=[JSON_BODY, MAY_CHANGE])
async def search_by_face(body: FaceQuery, services: ServicesDep) -> FaceMatches:
    """Return the persons that resemble a face, most similar first. Not for viewers."""
    return FaceMatches(matches=await find_matches(services, body))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            "description": "A line of JSON a person",
        }
    },
)
async def export(services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]) -> StreamingResponse:
    """Export all persons by global id, merged ones too, with vectors.

    Leaves an audit entry.
    """
    what = "detected-persons.exported"
    entry = AuditEntry(who=key.name, what=what, subject=ALL_SUBJECTS, at=services.now())
    await services.registry.audit.record(entry, None)
    return StreamingResponse(
        export_lines(services),
        media_type="application/x-ndjson",
        headers={
            "Content-Disposition": 'attachment; filename="detected-persons.ndjson"',
            "Cache-Control": "no-store",
        },
    )


async def _refuse_method(_: Request) -> Response:
    raise Problem(405, "method-not-allowed", "this path has no such method")


# Otherwise the methods of `/{global_id}` would take these names for a global id.
for _name in ("active", "search-by-face", "export"):
    router.add_route(
        f"{router.prefix}/{_name}", _refuse_method, ["GET", "PATCH", "DELETE"], include_in_schema=False
    )


def to_filter(
    active: Annotated[bool | None, Query(description="Seen now, or not")] = None,
    site_id: Annotated[SiteId | None, Query(description="Last seen there")] = None,
    device_id: Annotated[DeviceId | None, Query(description="Ever seen there")] = None,
    user_id: Annotated[UserId | None, Query(description="Linked with this enrolled person")] = None,
    named: Annotated[bool | None, Query(description="With an assigned name, or without")] = None,
) -> DetectedPersonFilter:
    return DetectedPersonFilter(active, site_id, device_id, user_id, named)


@router.get("", dependencies=[MAY_READ])
async def list_persons(
    services: ServicesDep,
    criteria: Annotated[DetectedPersonFilter, Depends(to_filter)],
    limit: Limit = 100,
    cursor: PersonCursor = None,
) -> DetectedPersonPage:
    """Return detected persons, newest first; a merged one is shown as its merge group."""
    page = await services.registry.detected_person_queries.page(
        criteria, active_since(services), before=_from_cursor(cursor), limit=limit
    )
    context = await view_context_of(services, page.groups)
    following = (
        to_moment_cursor(page.next_position[0], str(page.next_position[1])) if page.next_position else None
    )
    return DetectedPersonPage(items=[to_view(one, context) for one in page.groups], next_cursor=following)


def _from_cursor(cursor: str | None) -> tuple[datetime, int] | None:
    parts = from_moment_cursor(cursor)
    if parts is None:
        return None
    at, key = parts
    if not (key.isascii() and key.isdecimal() and int(key) <= MOST_ID):
        raise cursor_invalid()
    return at, int(key)


@router.get("/{global_id}")
async def show(
    global_id: GlobalId,
    services: ServicesDep,
    key: Annotated[ApiKey, MAY_READ],
    face: Annotated[bool, Query(description="With the vector, if the key may see it")] = True,
) -> DetectedPersonDetail:
    """Return one person; a merged global id answers with its merge group."""
    queries = services.registry.detected_person_queries
    group = await queries.get_group(global_id)
    centroid = await centroid_of(services, group) if face and key.role != "viewer" else None
    return to_detail(group, await view_context_of(services, [group]), centroid)


@router.patch("/{global_id}", dependencies=[JSON_BODY])
async def rename(
    global_id: GlobalId, body: NameBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Set or remove the name of a person."""
    changes = services.registry.detected_person_edits
    await changes.rename(global_id, body.assigned_name, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.put("/{global_id}/link", dependencies=[JSON_BODY])
async def link(
    global_id: GlobalId, body: LinkBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Link a person to an enrolled identity; cameras do not change this link."""
    await services.registry.detected_person_edits.link(
        global_id, body.user_id, by=key.name, now=services.now()
    )
    return await view_of(services, global_id)


@router.delete("/{global_id}/link")
async def unlink(
    global_id: GlobalId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Remove the link to an enrolled identity; no camera links the two again."""
    await services.registry.detected_person_edits.unlink(global_id, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.post("/{global_id}/merge", dependencies=[JSON_BODY])
async def merge(
    global_id: GlobalId, body: IntoBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Merge this person into another, which is shown; `unmerge` undoes it."""
    await services.registry.detected_person_edits.merge(global_id, body.into, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.post("/{global_id}/unmerge")
async def unmerge(
    global_id: GlobalId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Undo the merge of this person into another."""
    await services.registry.detected_person_edits.unmerge(global_id, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.delete("/{global_id}")
async def delete(
    global_id: GlobalId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DeletedPersons:
    """Delete a merge group with its centroids and trails. This cannot be undone.

    A camera that sees the person again gets a new global id.
    """
    deleted = await services.registry.detected_person_edits.delete(global_id, by=key.name, now=services.now())
    return DeletedPersons(global_ids=deleted)


def to_period(
    since: Annotated[Moment | None, Query(description="Visit segments that ended then or later")] = None,
    until: Annotated[Moment | None, Query(description="Visit segments that began before")] = None,
) -> Period:
    return Period(since, until)


@router.get("/{global_id}/trail", dependencies=[MAY_READ])
async def show_trail(
    global_id: GlobalId,
    services: ServicesDep,
    period: Annotated[Period, Depends(to_period)],
    limit: Limit = 100,
    cursor: MomentCursor = None,
) -> TrailPage:
    """Return the visit segments of a person and of its merge group, newest first."""
    queries = services.registry.detected_person_queries
    group = await queries.get_group(global_id)
    found = await queries.trail(group.ids, period, before=from_moment_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    following = to_moment_cursor(shown[-1][1].since, shown[-1][0]) if len(found) > limit else None
    items = [to_segment(segment) for _, segment in shown]
    return TrailPage(global_id=group.root.global_id, items=items, next_cursor=following)
