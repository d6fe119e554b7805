"""Routes for privacy: erasures, their receipts, and the export of personal data."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse

from broker_bridge.registry.api_keys import ApiKey
from dashboard_api.erasures.views import (
    ErasurePage,
    ErasureReceipt,
    ErasureStarted,
    to_receipt,
    to_row,
    to_started,
)
from dashboard_api.http.base_models import UserId
from dashboard_api.http.paging import Limit, MomentCursor, cut_page, from_moment_cursor, to_moment_cursor
from dashboard_api.services.dependencies import ClockDep, ErasuresDep, ExportsDep
from dashboard_api.services.security import MAY_ADMINISTER, MAY_CHANGE, MAY_READ

router = APIRouter(prefix="/api/v1", tags=["privacy"])

ErasureId = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$")]


@router.post("/identities/{user_id}/erase")
async def erase(
    user_id: UserId, erasures: ErasuresDep, now: ClockDep, key: Annotated[ApiKey, MAY_ADMINISTER]
) -> ErasureStarted:
    """Erase an identity, live or deleted, with all identities merged into it.

    It cannot be undone. The same request again shows the same erasure. The bridge completes the steps that
    are still open.
    """
    erasure = await erasures.erase(user_id, by=key.name, now=now())
    return to_started(await erasures.continue_erasure(erasure.erasure_id, now()), user_id)


@router.get("/erasures", dependencies=[MAY_READ])
async def list_erasures(
    erasures: ErasuresDep, limit: Limit = 100, cursor: MomentCursor = None
) -> ErasurePage:
    """List erasures, newest first.

    The receipt of each has its devices and steps.
    """
    found = await erasures.page(before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(
        found, limit, lambda last: to_moment_cursor(last.requested_at, last.erasure_id)
    )
    return ErasurePage(items=[to_row(erasure) for erasure in page], next_cursor=next_cursor)


@router.get("/erasures/{erasure_id}", dependencies=[MAY_READ])
async def show_erasure(erasure_id: ErasureId, erasures: ErasuresDep, now: ClockDep) -> ErasureReceipt:
    """Show the receipt of an erasure.

    It has each step and the time of each device's confirmation. It has no user id.
    """
    return to_receipt(await erasures.note_confirmations(erasure_id, now()))


@router.get(
    "/identities/{user_id}/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"application/json": {"schema": {"type": "object"}}},
            "description": "One JSON document",
        }
    },
)
async def export(
    user_id: UserId, exports: ExportsDep, now: ClockDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> StreamingResponse:
    """Export all data about one identity, with vectors and images."""
    document = await exports.export_identity(user_id, by=key.name, now=now())
    return StreamingResponse(
        document,
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="{user_id}.json"',
            "Cache-Control": "no-store",
        },
    )
