"""`/api/detected-persons`: whom the cameras have seen, enrolled or not, and where (seed 004)."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse

from broker_bridge.contract.ids import DeviceId, SiteId, UserId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.detected_persons.queries import DetectedPersonFilter, Period
from broker_bridge.registry.detected_persons.removal import ALL_SUBJECTS
from dashboard_api.detected_persons.queries import (
    active_since,
    export_lines,
    face_of,
    matches_of,
    setting_of,
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
    to_stay,
    to_view,
)
from dashboard_api.events.filters import Moment
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, cursor_invalid, from_moment_cursor, to_moment_cursor
from dashboard_api.services.security import MAY_ADMINISTER, MAY_CHANGE, MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/detected-persons", tags=["detected persons"])

GlobalId = Annotated[int, Path(ge=1, le=MOST_ID)]


@router.get("/active", dependencies=[MAY_READ])
async def list_active(services: ServicesDep, limit: Limit = 1000) -> ActivePersonList:
    """Everybody whom cameras see now, newest first; `active_persons` counts those beyond `limit` too."""
    reading = services.registry.detected_person_queries
    count, shown = await reading.active_groups(active_since(services), limit)
    setting = await setting_of(services, shown)
    ids = [global_id for group in shown for global_id in group.ids]
    present_since = await reading.present_since(ids, setting.active_since)
    persons = [to_active(group, setting, present_since) for group in shown]
    return ActivePersonList(active_persons=count, persons=persons)


@router.post("/search-by-face", dependencies=[JSON_BODY, MAY_CHANGE])
async def search_by_face(body: FaceQuery, services: ServicesDep) -> FaceMatches:
    """Who looks like a face, most similar first. For keys that may handle vectors, so not for viewers."""
    return FaceMatches(matches=await matches_of(services, body))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "A line of JSON a person"}},
)
async def export(services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]) -> StreamingResponse:
    """Everybody by global id, those who were merged too, with their vectors. It leaves an audit entry."""
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


def to_filter(
    active: Annotated[bool | None, Query(description="Seen now, or not")] = None,
    site_id: Annotated[SiteId | None, Query(description="Last seen there")] = None,
    device_id: Annotated[DeviceId | None, Query(description="Ever seen there")] = None,
    user_id: Annotated[UserId | None, Query(description="Linked with this enrolled person")] = None,
    named: Annotated[bool | None, Query(description="Given a name by somebody, or not")] = None,
) -> DetectedPersonFilter:
    return DetectedPersonFilter(active, site_id, device_id, user_id, named)


@router.get("", dependencies=[MAY_READ])
async def list_persons(
    services: ServicesDep,
    wanted: Annotated[DetectedPersonFilter, Depends(to_filter)],
    limit: Limit = 100,
    cursor: Cursor = None,
) -> DetectedPersonPage:
    """Whom cameras have seen, newest first. Somebody merged is shown as whom they turned out to be."""
    page = await services.registry.detected_person_queries.page(
        wanted, active_since(services), before=_from_cursor(cursor), limit=limit
    )
    setting = await setting_of(services, page.groups)
    following = (
        to_moment_cursor(page.next_position[0], str(page.next_position[1])) if page.next_position else None
    )
    return DetectedPersonPage(items=[to_view(one, setting) for one in page.groups], next_cursor=following)


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
    """One person; a global id that was merged answers with whom it turned out to be."""
    reading = services.registry.detected_person_queries
    group = await reading.get_group(global_id)
    known = await face_of(services, group) if face and key.role != "viewer" else None
    return to_detail(group, await setting_of(services, [group]), known)


@router.patch("/{global_id}", dependencies=[JSON_BODY])
async def rename(
    global_id: GlobalId, body: NameBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Give a person a name, or take it away."""
    changes = services.registry.detected_person_edits
    await changes.rename(global_id, body.assigned_name, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.put("/{global_id}/link", dependencies=[JSON_BODY])
async def link(
    global_id: GlobalId, body: LinkBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Say which enrolled person this is. It holds against what cameras tell by the face."""
    await services.registry.detected_person_edits.link(
        global_id, body.user_id, by=key.name, now=services.now()
    )
    return await view_of(services, global_id)


@router.delete("/{global_id}/link")
async def unlink(
    global_id: GlobalId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Say that this is not the enrolled person; no camera links the two again."""
    await services.registry.detected_person_edits.unlink(global_id, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.post("/{global_id}/merge", dependencies=[JSON_BODY])
async def merge(
    global_id: GlobalId, body: IntoBody, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Let this person be another, who is shown; `unmerge` takes it back."""
    await services.registry.detected_person_edits.merge(global_id, body.into, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.post("/{global_id}/unmerge")
async def unmerge(
    global_id: GlobalId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DetectedPersonView:
    """Take back the merge by which this person became another."""
    await services.registry.detected_person_edits.unmerge(global_id, by=key.name, now=services.now())
    return await view_of(services, global_id)


@router.delete("/{global_id}")
async def delete(
    global_id: GlobalId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> DeletedPersons:
    """Delete a person, whoever was merged into them, their faces and trails. It cannot be undone.

    Cameras that see them again get a new global id.
    """
    deleted = await services.registry.detected_person_edits.delete(global_id, by=key.name, now=services.now())
    return DeletedPersons(global_ids=deleted)


def to_period(
    since: Annotated[Moment | None, Query(description="Stays that ended then or later")] = None,
    until: Annotated[Moment | None, Query(description="Stays that began before")] = None,
) -> Period:
    return Period(since, until)


@router.get("/{global_id}/trail", dependencies=[MAY_READ])
async def show_trail(
    global_id: GlobalId,
    services: ServicesDep,
    period: Annotated[Period, Depends(to_period)],
    limit: Limit = 100,
    cursor: Cursor = None,
) -> TrailPage:
    """On which camera a person was from when until when, newest first, with those who were merged."""
    reading = services.registry.detected_person_queries
    group = await reading.get_group(global_id)
    found = await reading.trail(group.ids, period, before=from_moment_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    following = to_moment_cursor(shown[-1][1].since, shown[-1][0]) if len(found) > limit else None
    items = [to_stay(stay) for _, stay in shown]
    return TrailPage(global_id=group.root.global_id, items=items, next_cursor=following)
