"""Convert reported visits into events, each decided by itself."""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from pydantic import ValidationError

from broker_bridge.contract.channels import describe
from broker_bridge.contract.errors import EVENT_INVALID, ContractError
from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.events.admission import EventAdmission, check_reported_visitor
from broker_bridge.registry.events.model import IncomingEvent, RecordedEvents
from broker_bridge.registry.identities.model import Identity

from .views import VisitBody, VisitError

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_visits(
    items: list[dict[str, Any]],
    device: Device,
    received_at: datetime,
    admission: EventAdmission,
    errors: list[VisitError],
) -> dict[int, Event]:
    """Return the admissible visits by index; add the others to `errors`."""
    visits = {}
    for index, item in enumerate(items):
        try:
            visit = to_visit(item, device)
            admission.check_event(visit, device, received_at)
            visits[index] = visit
        except ContractError as error:
            errors.append(VisitError(index=index, code=error.code, detail=error.detail))
    return visits


def reject_unknown_visitors(
    visits: Mapping[int, Event], identities: Mapping[str, Identity], device: Device, errors: list[VisitError]
) -> dict[int, Event]:
    """Return the visits that the site can report, by index; add others to `errors`."""
    admitted = {}
    for index, visit in visits.items():
        try:
            check_reported_visitor(identities, visit.user_id or "", device.site_id, visit.timestamp)
        except ContractError as error:
            errors.append(VisitError(index=index, code=error.code, detail=error.detail))
        else:
            admitted[index] = visit
    return admitted


def split_recorded_visits(
    batch: Mapping[int, IncomingEvent], recorded: RecordedEvents, errors: list[VisitError]
) -> list[str]:
    """Return the ids of the stored visits; add the others to `errors`.

    The rejections are by place among the values of `batch`.
    """
    stored: dict[str, None] = {}
    for place, (index, incoming) in enumerate(batch.items()):
        rejection = recorded.rejected.get(place)
        if rejection is None:
            stored[incoming.event.event_id] = None
        else:
            errors.append(VisitError(index=index, code=rejection.code, detail=rejection.detail))
    return list(stored)


def to_visit(item: Mapping[str, Any], device: Device) -> Event:
    """Return the `visit` event of one report; raise ContractError.

    A report without an event id gets one derived from its content, so that a repeated report is the same
    event.
    """
    try:
        body = VisitBody.model_validate(item)
        return Event(
            # No event id is of a time before 1970.
            event_id=_event_id_of(body, device),
            device_id=device.device_id,
            user_id=body.face_id,
            event_type="visit",
            timestamp=body.timestamp,
            confidence=body.confidence,
            metadata={"liveness": body.liveness.model_dump()} if body.liveness else {},
        )
    except ValidationError as error:
        raise ContractError(EVENT_INVALID, describe(error)) from error


def _event_id_of(body: VisitBody, device: Device) -> str:
    code = EVENT_CODES["visit"]
    if body.event_id is None:
        at_ms = (body.timestamp - _UNIX_EPOCH) // timedelta(milliseconds=1)
        content = f"{device.device_id}/{body.face_id}/{at_ms}"
        return new_event_id(code, at_ms, hashlib.sha256(content.encode()).hexdigest()[:12])
    if not body.event_id.startswith(f"{code}-"):
        raise ContractError(EVENT_INVALID, f"event_id: that of a visit begins with {code}-")
    return body.event_id
