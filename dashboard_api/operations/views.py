"""Response bodies of `/api/v1/audit`."""

from typing import Any

from dashboard_api.http.base_models import Time, View


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
