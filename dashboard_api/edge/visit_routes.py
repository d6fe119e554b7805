"""Routes of `/api/edge/visitors` and `/api/edge/visits` (seed 002)."""

from fastapi import APIRouter, Response

from broker_bridge.contract.errors import ENROLLMENT_CLOSED, FACE_AMBIGUOUS, LIMITS_MISSING, MODEL_DIFFERS
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.messages import Registered, RegisterIdentity
from broker_bridge.registry.edge_registration.visitors import new_visitor_id
from broker_bridge.registry.events.model import IncomingEvent
from dashboard_api.edge.caller import CallerDep
from dashboard_api.edge.views import VisitError, VisitorBody, VisitorView, VisitsBody, VisitsView
from dashboard_api.edge.visits import reject_unknown_visitors, split_recorded_visits, to_visits
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space, to_template
from dashboard_api.identities.views import TemplateBody
from dashboard_api.services.dependencies import (
    AttendanceDep,
    ClockDep,
    EdgeRegistrationDep,
    EventAdmissionDep,
    EventsDep,
    SettingsDep,
    SpacesDep,
)

router = APIRouter(prefix="/api/edge", tags=["edge"])

_CONFLICTS = {FACE_AMBIGUOUS, ENROLLMENT_CLOSED, MODEL_DIFFERS, LIMITS_MISSING}


@router.post(
    "/visitors",
    dependencies=[JSON_BODY],
    responses={201: {"model": VisitorView, "description": "A new visitor"}},
)
async def register_visitor(
    *,
    body: VisitorBody,
    caller: CallerDep,
    registration: EdgeRegistrationDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    now: ClockDep,
    response: Response,
) -> VisitorView:
    """Register a face that the device does not know.

    Of several devices the first one creates the identity. A face that belongs to an identity is recorded as a
    visit of it. The same `request_id` again gets the same answer.
    """
    space: SpaceId = body.space or default_space(settings, "face")
    vectors = TemplateBody(space=space, vector=body.vector, embedding=body.embedding, quality=body.quality)
    template = to_template(vectors, await spaces.dimensions(), "edge")
    request = RegisterIdentity(
        request_id=body.request_id,
        display_name=body.name,
        space=space,
        vector=template.vector,
        quality=body.quality,
        kind="visitor",
    )
    answer = await registration.decide_registration(
        caller.device.device_id, request, at=now(), new_user_id=new_visitor_id
    )
    if answer is None:
        detail = "the identities change too fast for a decision: send the same request again"
        raise Problem(503, "registry-busy", detail, {"Retry-After": "5"})
    view = _to_view(answer)
    response.status_code = 201 if view.result == "created" else 200
    return view


def _to_view(answer: Registered) -> VisitorView:
    """Return the answer to a device; raise Problem 409 or 422 for a rejection."""
    if answer.error is not None or answer.result == "rejected" or answer.user_id is None:
        code, detail = (answer.error.code, answer.error.detail) if answer.error else ("rejected", "rejected")
        raise Problem(409 if code in _CONFLICTS else 422, code, detail, similarity=answer.similarity)
    return VisitorView(
        result=answer.result,
        user_id=answer.user_id,
        face_id=answer.user_id,
        similarity=answer.similarity,
    )


@router.post("/visits", dependencies=[JSON_BODY])
async def report_visits(
    *,
    body: VisitsBody,
    caller: CallerDep,
    admission: EventAdmissionDep,
    attendance: AttendanceDep,
    events: EventsDep,
    now: ClockDep,
) -> VisitsView:
    """Report visits of known identities.

    Each visit is decided by itself. A repeated report changes nothing.
    """
    received_at, device = now(), caller.device
    errors: list[VisitError] = []
    visits = to_visits(body.visits, device, received_at, admission, errors)
    identities = await attendance.identities([visit.user_id or "" for visit in visits.values()])
    admitted = reject_unknown_visitors(visits, identities, device, errors)
    batch = {index: IncomingEvent(visit, device.site_id, received_at) for index, visit in admitted.items()}
    recorded = await events.record(list(batch.values()))
    stored = split_recorded_visits(batch, recorded, errors)
    return VisitsView(
        recorded=len(recorded.stored) - recorded.repeats,
        stored=stored,
        errors=sorted(errors, key=lambda error: error.index),
    )
