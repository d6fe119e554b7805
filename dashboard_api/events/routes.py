"""Routes of `/api/v1/events`: recognition events as a list, one by one, and live."""

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from broker_bridge.contract.ids import DeviceId, EventId
from broker_bridge.registry.events.feed import FeedCursor, FeedLostError
from dashboard_api.events.filters import EventFilterDep
from dashboard_api.events.keepalive import with_pauses
from dashboard_api.events.views import EventDocument, EventFeedPage, EventPage
from dashboard_api.http.openapi import problems
from dashboard_api.http.paging import (
    FeedCursorText,
    Limit,
    MomentCursor,
    cursor_invalid,
    cut_page,
    from_cursor,
    from_moment_cursor,
    to_cursor,
    to_moment_cursor,
)
from dashboard_api.http.problems import Problem, not_found
from dashboard_api.services.dependencies import EventFeedDep, EventsDep, HubDep, SettingsDep
from dashboard_api.services.event_hub import RESUME_LOST, Subscription
from dashboard_api.services.key_watch import open_request_of
from dashboard_api.services.security import MAY_READ

router = APIRouter(prefix="/api/v1/events", tags=["events"])

# A MongoDB integer has 64 bits.
_POSITION = re.compile(r"[0-9]{1,18}", re.ASCII)

LastEventId = Annotated[str | None, Header(pattern=r"^[0-9A-Fa-f]{0,2048}$", alias="Last-Event-ID")]


@router.get("", dependencies=[MAY_READ])
async def list_events(
    events: EventsDep, criteria: EventFilterDep, limit: Limit = 100, cursor: MomentCursor = None
) -> EventPage:
    """List events by time of receipt, newest first."""
    found = await events.page(criteria, before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(found, limit, lambda last: to_moment_cursor(last.received_at, last.key))
    return EventPage(items=[event.to_wire() for event in page], next_cursor=next_cursor)


@router.get("/feed", dependencies=[MAY_READ], responses=problems(410))
async def read_feed(
    event_feed: EventFeedDep,
    criteria: EventFilterDep,
    limit: Limit = 100,
    cursor: FeedCursorText = None,
) -> EventFeedPage:
    """Read events in order of receipt, oldest first; none is skipped.

    Continue with `cursor`, at once while `more`, and later for what comes then. Begin with `received_after`
    to leave out what is older. 410 `resume-lost`: a backup was restored, begin again.
    """
    try:
        page = await event_feed.read(criteria, _from_feed_cursor(cursor), limit)
    except FeedLostError as error:
        detail = "the events have another history than this cursor: begin again with received_after"
        raise Problem(410, RESUME_LOST, detail) from error
    return EventFeedPage(
        items=[event.to_wire() for event in page.events],
        cursor=to_cursor(page.cursor.epoch, str(page.cursor.position)),
        more=page.more,
    )


def _from_feed_cursor(cursor: str | None) -> FeedCursor | None:
    parts = from_cursor(cursor, 2)
    if parts is None:
        return None
    epoch, position = parts
    if not _POSITION.fullmatch(position):
        raise cursor_invalid()
    return FeedCursor(epoch, int(position))


async def subscribe(
    hub: HubDep, request: Request, last_event_id: LastEventId = None
) -> AsyncIterator[Subscription]:
    async with hub.subscribe(last_event_id) as subscription:
        opened = open_request_of(request)
        if opened is not None:
            opened.on_revoked = subscription.drop
        yield subscription


@router.get("/stream", dependencies=[MAY_READ], response_class=EventSourceResponse, responses=problems(410))
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
async def show(device_id: DeviceId, event_id: EventId, events: EventsDep) -> EventDocument:
    """Show one event without its image."""
    found = await events.get(device_id, event_id)
    if found is None:
        raise not_found(f"event {event_id} of {device_id}")
    return found.to_wire()


@router.get(
    "/{device_id}/{event_id}/image",
    dependencies=[MAY_READ],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def show_image(device_id: DeviceId, event_id: EventId, events: EventsDep) -> Response:
    """Show the JPEG of an event until it expires."""
    image = await events.image(device_id, event_id)
    if image is None:
        raise not_found(f"image of event {event_id} of {device_id}; images expire")
    return Response(image, media_type="image/jpeg")
