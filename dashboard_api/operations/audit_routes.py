"""`/api/v1/audit`: who changed what, and when."""

from typing import Annotated

from fastapi import APIRouter, Query

from dashboard_api.http.paging import Cursor, Limit, from_moment_cursor, to_moment_cursor
from dashboard_api.operations.views import AuditPage, AuditView
from dashboard_api.services.security import MAY_ADMINISTER
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("", dependencies=[MAY_ADMINISTER])
async def list_entries(
    services: ServicesDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    subject: Annotated[str | None, Query(max_length=255, description="Only what happened to this id")] = None,
) -> AuditPage:
    """Every change of people, devices and sites, and every command, newest first."""
    found = await services.registry.audit.page(
        subject=subject, before=from_moment_cursor(cursor), limit=limit + 1
    )
    shown = [
        AuditView(
            id=entry.entry_id,
            at=entry.at,
            who=entry.who,
            what=entry.what,
            subject=entry.subject,
            before=entry.before,
            after=entry.after,
        )
        for entry in found[:limit]
    ]
    following = to_moment_cursor(shown[-1].at, shown[-1].id) if len(found) > limit else None
    return AuditPage(items=shown, next_cursor=following)
