"""`/api/v1/events`: what cameras have recognised, as a list, one by one, and live."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator, AwareDatetime

from broker_bridge.contract.ids import DeviceId, EventId, EventType, UserId
from broker_bridge.registry.events.event_filter import EventFilter
from broker_bridge.registry.events.events import event_to_wire
from dashboard_api.events.views import EventPage
from dashboard_api.http.paging import Cursor, Limit, from_moment_cursor, to_moment_cursor
from dashboard_api.http.problems import not_found
from dashboard_api.services.event_hub import Subscription
from dashboard_api.services.security import MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1/events", tags=["events"])

LastEventId = Annotated[str | None, Header(pattern=r"^[0-9A-Fa-f]{1,2048}$", alias="Last-Event-ID")]
# Neither an offset nor the margin of the filter (a day) may lead out of the years that a datetime can hold.
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


def _within_reason(at: datetime) -> datetime:
    if not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ValueError(f"a year of events lies within {_FIRST_YEAR}..{_LAST_YEAR}")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_within_reason)]


def to_filter(
    user_id: Annotated[UserId | None, Query()] = None,
    device_id: Annotated[DeviceId | None, Query()] = None,
    event_type: Annotated[EventType | None, Query()] = None,
    since: Annotated[Moment | None, Query(description="Recognised at this time or later")] = None,
    until: Annotated[Moment | None, Query(description="Recognised before this time")] = None,
) -> EventFilter:
    """Return the filter that the query parameters describe."""
    return EventFilter(user_id, device_id, event_type, since, until)


@router.get("", dependencies=[MAY_READ])
async def list_events(
    services: ServicesDep,
    criteria: Annotated[EventFilter, Depends(to_filter)],
    limit: Limit = 100,
    cursor: Cursor = None,
) -> EventPage:
    """Events by time of receipt, newest first."""
    before = from_moment_cursor(cursor)
    found = await services.registry.events.page(criteria, before=before, limit=limit + 1)
    shown = found[:limit]
    following = to_moment_cursor(shown[-1]["received_at"], shown[-1]["_id"]) if len(found) > limit else None
    return EventPage(items=[event_to_wire(event) for event in shown], next_cursor=following)


async def subscribed(services: ServicesDep, last_event_id: LastEventId = None) -> AsyncIterator[Subscription]:
    async with services.hub.subscribe(last_event_id) as subscription:
        yield subscription


@router.get("/stream", dependencies=[MAY_READ], response_class=EventSourceResponse)
async def stream(
    subscription: Annotated[Subscription, Depends(subscribed)],
) -> AsyncIterator[ServerSentEvent]:
    """New events as they are recorded. Send the last `id` as Last-Event-ID to go on where it broke."""
    # The first id lets a watcher go on from here who has not seen an event yet.
    first = None if subscription.catching_up is not None else subscription.position
    yield ServerSentEvent(comment="connected", id=first)
    async for event in subscription:
        yield ServerSentEvent(event="event", raw_data=event.data, id=event.token)


@router.get("/{device_id}/{event_id}", dependencies=[MAY_READ])
async def show(device_id: DeviceId, event_id: EventId, services: ServicesDep) -> dict[str, Any]:
    """One event without its image."""
    found = await services.registry.events.get(device_id, event_id)
    if found is None:
        raise not_found(f"event {event_id} of {device_id}")
    return event_to_wire(found)


@router.get("/{device_id}/{event_id}/image", dependencies=[MAY_READ], response_class=Response)
async def show_image(device_id: DeviceId, event_id: EventId, services: ServicesDep) -> Response:
    """The event's JPEG, as long as it is kept."""
    image = await services.registry.events.image(device_id, event_id)
    if image is None:
        raise not_found(f"image of event {event_id} of {device_id}; images expire")
    return Response(image, media_type="image/jpeg")
