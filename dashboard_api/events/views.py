"""Response bodies of `/api/v1/events`."""

from typing import Annotated, Any

from broker_bridge.contract.ids import EventType
from dashboard_api.http.base_models import DocumentedAs, Time, View


class EventView(View):
    """A recognition event as on the wire (seed 003), without its image.

    `site_id`, `received_at` and `has_image` are added. An absent field has no value.
    """

    device_id: str
    event_id: str
    site_id: str | None = None
    user_id: str | None = None
    event_type: EventType
    timestamp: Time
    received_at: Time
    confidence: float
    metadata: dict[str, Any]
    has_image: bool
    emotion_code: str | None = None
    image_error: str | None = None


EventDocument = Annotated[dict[str, Any], DocumentedAs(EventView)]


class EventFeedPage(View):
    """Events in order of receipt, as in a list of events.

    `cursor` is where the feed continues; with `more` further events wait now.
    """

    items: list[EventDocument]
    cursor: str
    more: bool


class EventPage(View):
    """Events of a list."""

    items: list[EventDocument]
    next_cursor: str | None
