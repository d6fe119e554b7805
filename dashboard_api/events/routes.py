"""Routes of `/api/v1/events`: recognition events as a list, one by one, and live."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from broker_bridge.contract.ids import DeviceId, EventId
from dashboard_api.events.filters import EventFilterDep
from dashboard_api.events.keepalive import with_pauses
from dashboard_api.events.views import EventPage
from dashboard_api.http.paging import Cursor, Limit, cut_page, from_moment_cursor, to_moment_cursor
from dashboard_api.http.problems import not_found
from dashboard_api.services.dependencies import EventsDep, HubDep, SettingsDep
from dashboard_api.services.event_hub import Subscription
from dashboard_api.services.key_watch import open_request_of
from dashboard_api.services.security import MAY_READ

router = APIRouter(prefix="/api/v1/events", tags=["events"])

LastEventId = Annotated[str | None, Header(pattern=r"^[0-9A-Fa-f]{0,2048}$", alias="Last-Event-ID")]


@router.get("", dependencies=[MAY_READ])
async def list_events(
    events: EventsDep, criteria: EventFilterDep, limit: Limit = 100, cursor: Cursor = None
) -> EventPage:
    """List events by time of receipt, newest first."""
    found = await events.page(criteria, before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(found, limit, lambda last: to_moment_cursor(last.received_at, last.key))
    return EventPage(items=[event.to_wire() for event in page], next_cursor=next_cursor)


async def subscribe(
    hub: HubDep, request: Request, last_event_id: LastEventId = None
) -> AsyncIterator[Subscription]:
    async with hub.subscribe(last_event_id) as subscription:
        opened = open_request_of(request)
        if opened is not None:
            opened.on_revoked = subscription.drop
        yield subscription


@router.get("/stream", dependencies=[MAY_READ], response_class=EventSourceResponse)
async def stream(
    subscription: Annotated[Subscription, Depends(subscribe)], settings: SettingsDep
) -> AsyncIterator[ServerSentEvent]:
    """Stream new events as they are recorded.

    Send the last `id` as Last-Event-ID to resume after an interruption. In a pause a comment comes every few
    seconds; a client that gets none for some time should connect again.
    """
    # The first block has an id too, so that a client can resume before its first event.
    first = None if subscription.missed is not None else subscription.position
    yield ServerSentEvent(comment="connected", id=first)
    async for event in with_pauses(subscription, settings.stream_keepalive_seconds):
        if event is None:
            yield ServerSentEvent(comment="alive")
        else:
            yield ServerSentEvent(event="event", raw_data=event.data, id=event.token)


@router.get("/{device_id}/{event_id}", dependencies=[MAY_READ])
async def show(device_id: DeviceId, event_id: EventId, events: EventsDep) -> dict[str, Any]:
    """Show one event without its image."""
    found = await events.get(device_id, event_id)
    if found is None:
        raise not_found(f"event {event_id} of {device_id}")
    return found.to_wire()


@router.get("/{device_id}/{event_id}/image", dependencies=[MAY_READ], response_class=Response)
async def show_image(device_id: DeviceId, event_id: EventId, events: EventsDep) -> Response:
    """Show the JPEG of an event until it expires."""
    image = await events.image(device_id, event_id)
    if image is None:
        raise not_found(f"image of event {event_id} of {device_id}; images expire")
    return Response(image, media_type="image/jpeg")
