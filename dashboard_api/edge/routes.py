"""`/api/edge`: for devices that poll over HTTP instead of MQTT (seed 002). The key says which device asks."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from broker_bridge.contract.errors import (
    DEVICE_UNKNOWN,
    ENROLLMENT_CLOSED,
    FACE_AMBIGUOUS,
    MODEL_DIFFERS,
    ContractError,
)
from broker_bridge.contract.ids import Epoch, SpaceId
from broker_bridge.contract.messages import Event, RegisterIdentity, Version
from broker_bridge.contract.wire import MAX_PAGE_BYTES
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.edge_registration.visitors import new_visitor_id
from broker_bridge.registry.events.events import IncomingEvent
from dashboard_api.edge.conversions import (
    EdgeDevice,
    SyncQuery,
    check_visitor,
    spaces_of,
    to_changes,
    to_visit,
)
from dashboard_api.edge.views import (
    ConfirmBody,
    ConfirmView,
    EdgeChanges,
    VisitError,
    VisitorBody,
    VisitorView,
    VisitsBody,
    VisitsView,
)
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Limit
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space, to_template
from dashboard_api.identities.views import TemplateBody
from dashboard_api.services.security import allow
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/edge", tags=["edge"])

_CONFLICTS = {FACE_AMBIGUOUS, ENROLLMENT_CLOSED, MODEL_DIFFERS}


async def _caller(key: Annotated[ApiKey, Depends(allow("edge"))], services: ServicesDep) -> EdgeDevice:
    """The device that the key belongs to; raises Problem 403."""
    if key.device_id is None:
        detail = "this key is no device's: python -m dashboard_api new-key NAME --role edge --device DEVICE"
        raise Problem(403, "key-without-device", detail)
    found = await services.registry.devices.get(key.device_id)
    device = found.registered if found else None
    if found is None or device is None:
        raise Problem(403, DEVICE_UNKNOWN, f"{key.device_id}, the device of this key, is not registered")
    return EdgeDevice(device, tuple(sorted(found.declared_spaces)))


Caller = Annotated[EdgeDevice, Depends(_caller)]


def _spaces(
    spaces: Annotated[str | None, Query(max_length=1200, description="Separated by commas")] = None,
) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spaces.split(","))) if spaces else ()


@router.get("/sync", response_model_exclude_unset=True)
async def sync(
    caller: Caller,
    services: ServicesDep,
    spaces: Annotated[tuple[str, ...], Depends(_spaces)],
    *,
    since: Annotated[
        str, Query(max_length=64, description="`version` or `sync_timestamp` of the answer before")
    ] = "0",
    epoch: Annotated[Epoch | None, Query(description="`epoch` of the answer before")] = None,
    reset_head_version: Annotated[Version | None, Query(description="As in `next`")] = None,
    begun_at: Annotated[Version | None, Query(description="As in `next`")] = None,
    limit: Limit = 200,
    vectors: Annotated[bool, Query(description="Tell templates as well")] = True,
) -> EdgeChanges:
    """What has changed for the device's site; without `since` a full snapshot. Go on with `next`."""
    asked_at = services.now()
    query = SyncQuery(since, epoch, reset_head_version, begun_at, spaces, vectors, limit)
    missed = await services.registry.edge_polling.poll(
        caller.device.site_id,
        query.cursor,
        spaces_of(query, caller, await services.registry.spaces.dimensions()),
        limit=limit,
        max_bytes=MAX_PAGE_BYTES,
        now=asked_at,
    )
    return to_changes(missed, query, caller.device, asked_at)


@router.post("/confirm", dependencies=[JSON_BODY])
async def confirm(body: ConfirmBody, caller: Caller, services: ServicesDep) -> ConfirmView:
    """The device holds all up to a version: deletions up to there count as confirmed."""
    device_id = caller.device.device_id
    history = await services.registry.versions.read()
    if body.epoch != history.epoch:
        detail = "another history has begun: sync from the beginning, then confirm"
        raise Problem(409, "sync-epoch-changed", detail)
    if body.version > history.version:
        raise Problem(409, "version-ahead", f"the history stands at {history.version}: nobody holds more")
    said = body.model_dump()
    await services.registry.devices.record_reports(
        [DeviceReport.latest(device_id, "applied", said, services.now())]
    )
    return ConfirmView(device_id=device_id, epoch=body.epoch, version=body.version)


@router.post(
    "/visitors",
    dependencies=[JSON_BODY],
    responses={201: {"model": VisitorView, "description": "Somebody new"}},
)
async def register_visitor(
    body: VisitorBody, caller: Caller, services: ServicesDep, response: Response
) -> VisitorView:
    """Somebody whom the device does not know: the registry says who that is now. The first device wins;
    where the face is somebody's already, a visit is recorded. The same `request_id` is answered the same."""
    registry = services.registry
    space: SpaceId = body.space or default_space(services.settings, "face")
    vectors = TemplateBody(space=space, vector=body.vector, embedding=body.embedding, quality=body.quality)
    template = to_template(vectors, await registry.spaces.dimensions(), "edge")
    request = RegisterIdentity(
        request_id=body.request_id,
        display_name=body.name,
        space=space,
        vector=template.vector,
        quality=body.quality,
        kind="visitor",
    )
    answer = await registry.edge_registration.decide_registration(
        caller.device.device_id, request, at=services.now(), new_user_id=new_visitor_id
    )
    if answer is None:
        detail = "too much changes at the moment to tell who it is: send the same request again"
        raise Problem(503, "registry-busy", detail, {"Retry-After": "5"})
    if answer.error is not None or answer.result == "rejected" or answer.user_id is None:
        code, detail = (answer.error.code, answer.error.detail) if answer.error else ("rejected", "rejected")
        raise Problem(409 if code in _CONFLICTS else 422, code, detail, similarity=answer.similarity)
    response.status_code = 201 if answer.result == "created" else 200
    return VisitorView(
        result=answer.result,
        user_id=answer.user_id,
        face_id=answer.user_id,
        similarity=answer.similarity,
    )


@router.post("/visits", dependencies=[JSON_BODY])
async def report_visits(body: VisitsBody, caller: Caller, services: ServicesDep) -> VisitsView:
    """Visits of people whom the device knows, each judged by itself; a repeat changes nothing."""
    now, device = services.now(), caller.device
    events: dict[int, Event] = {}
    errors: list[VisitError] = []
    for index, item in enumerate(body.visits):
        try:
            events[index] = to_visit(item, device, now)
        except ContractError as error:
            errors.append(VisitError(index=index, code=error.code, detail=error.detail))
    people = await services.registry.attendance.identities([one.user_id or "" for one in events.values()])
    for index, event in list(events.items()):
        try:
            check_visitor(event, people, device)
        except ContractError as error:
            errors.append(VisitError(index=index, code=error.code, detail=error.detail))
            del events[index]
    batch = [IncomingEvent(event, device.site_id, now) for event in events.values()]
    recorded = await services.registry.events.record(batch, expect_repeats=True)
    return VisitsView(
        recorded=len(recorded.stored) - recorded.repeats,
        stored=list(dict.fromkeys(one.event.event_id for one in batch if one.key in recorded.stored)),
        errors=sorted(errors, key=lambda one: one.index),
    )
