"""Route of `/api/v1/audit`: changes with their author and time."""

from typing import Annotated

from fastapi import APIRouter, Query

from dashboard_api.http.paging import Limit, MomentCursor, cut_page, from_moment_cursor, to_moment_cursor
from dashboard_api.operations.views import AuditPage, AuditView
from dashboard_api.services.dependencies import AuditDep
from dashboard_api.services.security import MAY_ADMINISTER

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("", dependencies=[MAY_ADMINISTER])
async def list_entries(
    audit: AuditDep,
    limit: Limit = 100,
    cursor: MomentCursor = None,
    subject: Annotated[str | None, Query(max_length=255, description="Only changes of this id")] = None,
) -> AuditPage:
    """List changes of identities, devices and sites, and commands, newest first."""
    found = await audit.page(subject=subject, before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(found, limit, lambda last: to_moment_cursor(last.at, last.entry_id))
    entries = [
        AuditView(
            id=entry.entry_id,
            at=entry.at,
            who=entry.who,
            what=entry.what,
            subject=entry.subject,
            before=entry.before,
            after=entry.after,
        )
        for entry in page
    ]
    return AuditPage(items=entries, next_cursor=next_cursor)
