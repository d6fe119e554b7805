"""`/healthz` and `/readyz`, for supervisors: booleans only, and no key needed."""

import asyncio
from datetime import timedelta

from fastapi import APIRouter, Response

from broker_bridge.registry import RegistryError
from dashboard_api.services.services import ServicesDep

router = APIRouter(tags=["health"])

_PING_SECONDS = 3.0
_BRIDGE_REPORTS_WITHIN = timedelta(seconds=15)


@router.get("/healthz")
async def alive() -> dict[str, bool]:
    """The process lives."""
    return {"alive": True}


@router.get("/readyz")
async def ready(services: ServicesDep, response: Response) -> dict[str, bool]:
    """200 while MongoDB answers, else 503; `bridge` says whether a bridge worker is at work."""
    since = services.now() - _BRIDGE_REPORTS_WITHIN
    try:
        bridge = await asyncio.wait_for(services.overview.bridge_seen_since(since), _PING_SECONDS)
    except (RegistryError, asyncio.TimeoutError):
        response.status_code = 503
        return {"ready": False, "mongo": False, "bridge": False}
    return {"ready": True, "mongo": True, "bridge": bridge}
