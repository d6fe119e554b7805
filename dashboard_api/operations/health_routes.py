"""Routes `/healthz` and `/readyz` for supervisors, without an API key."""

import asyncio
from datetime import timedelta

from fastapi import APIRouter, Response

from broker_bridge.registry import RegistryError
from dashboard_api.services.dependencies import ClockDep, OverviewDep

router = APIRouter(tags=["health"])

_PING_SECONDS = 3.0
_BRIDGE_REPORTS_WITHIN = timedelta(seconds=15)


@router.get("/healthz")
async def alive() -> dict[str, bool]:
    """Report that the process is alive."""
    return {"alive": True}


@router.get("/readyz")
async def ready(overview: OverviewDep, now: ClockDep, response: Response) -> dict[str, bool]:
    """Report whether MongoDB answers: 200 if so, else 503.

    `bridge` is true while a bridge worker reports.
    """
    since = now() - _BRIDGE_REPORTS_WITHIN
    try:
        bridge = await asyncio.wait_for(overview.bridge_seen_since(since), _PING_SECONDS)
    except (RegistryError, asyncio.TimeoutError):
        response.status_code = 503
        return {"ready": False, "mongo": False, "bridge": False}
    return {"ready": True, "mongo": True, "bridge": bridge}
