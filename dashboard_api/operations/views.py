"""Response bodies of `/api/v1/audit`, `/healthz` and `/readyz`."""

from typing import Any

from dashboard_api.http.base_models import Time, View


class AliveView(View):
    """The process is alive."""

    alive: bool


class ReadyView(View):
    """Whether requests can be served, and what they need."""

    ready: bool
    mongo: bool
    bridge: bool


class AuditView(View):
    """A change: `what` was done to `subject`.

    The author is the name of an API key, or `device:<id>`. `before` and `after` are the changed values.
    """

    id: str
    at: Time
    who: str
    what: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(View):
    items: list[AuditView]
    next_cursor: str | None
