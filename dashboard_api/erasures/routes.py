"""`/api/v1/erasures` and what the law asks for besides: all that is held about one person."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse

from broker_bridge.contract.ids import UserId
from broker_bridge.registry.api_keys import ApiKey
from dashboard_api.erasures.views import (
    ErasureBegun,
    ErasurePage,
    ErasureReceipt,
    to_begun,
    to_receipt,
    to_row,
)
from dashboard_api.http.paging import Cursor, Limit, from_moment_cursor, to_moment_cursor
from dashboard_api.services.security import MAY_ADMINISTER, MAY_CHANGE, MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1", tags=["privacy"])

ErasureId = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$")]


@router.post("/identities/{user_id}/erase")
async def erase(
    user_id: UserId, services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]
) -> ErasureBegun:
    """Erase a person, live or deleted, and whoever was merged into them. It cannot be undone.

    Asked again, the same erasure is answered. What is left when this answers, the bridge does.
    """
    erasures = services.registry.erasures
    begun = await erasures.erase(user_id, by=key.name, now=services.now())
    return to_begun(await erasures.go_on(begun.erasure_id, services.now()), user_id)


@router.get("/erasures", dependencies=[MAY_READ])
async def list_erasures(services: ServicesDep, limit: Limit = 100, cursor: Cursor = None) -> ErasurePage:
    """Erasures, newest first. Devices and steps are in the receipt of each."""
    found = await services.registry.erasures.page(before=from_moment_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    following = to_moment_cursor(shown[-1].requested_at, shown[-1].erasure_id) if more else None
    return ErasurePage(items=[to_row(erasure) for erasure in shown], next_cursor=following)


@router.get("/erasures/{erasure_id}", dependencies=[MAY_READ])
async def show_erasure(erasure_id: ErasureId, services: ServicesDep) -> ErasureReceipt:
    """The receipt: what was done, and when each device confirmed. It does not say whose it is."""
    return to_receipt(await services.registry.erasures.note_confirmations(erasure_id, services.now()))


@router.get(
    "/identities/{user_id}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/json": {}}, "description": "One JSON document"}},
)
async def export(
    user_id: UserId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> StreamingResponse:
    """Everything that is held about one person, vectors and pictures too, as one JSON document."""
    document = await services.registry.personal_data_export.of(user_id, by=key.name, now=services.now())
    return StreamingResponse(
        document,
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="{user_id}.json"',
            "Cache-Control": "no-store",
        },
    )
