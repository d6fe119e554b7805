"""Response bodies of `/api/v1/events`."""

from typing import Any

from dashboard_api.http.base_models import View


class EventFeedPage(View):
    """Events in order of receipt, as in a list of events.

    `cursor` is where the feed continues; with `more` further events wait now.
    """

    items: list[dict[str, Any]]
    cursor: str
    more: bool


class EventPage(View):
    """Events as on the wire (seed 003).

    The image is left out; `site_id`, `received_at` and `has_image` are added.
    """

    items: list[dict[str, Any]]
    next_cursor: str | None
