"""Routes `/healthz` and `/readyz` for supervisors, without an API key."""

import asyncio
from datetime import timedelta

from fastapi import APIRouter, Response

from broker_bridge.registry import RegistryError
from dashboard_api.http.openapi import problems
from dashboard_api.http.problems import Problem
from dashboard_api.operations.views import AliveView, ReadyView
from dashboard_api.services.dependencies import ClockDep, OverviewDep, ProbeDep

router = APIRouter(tags=["health"])

_PING_SECONDS = 3.0
_BRIDGE_REPORTS_WITHIN = timedelta(seconds=15)


@router.get("/healthz", responses=problems(503))
async def alive(probe: ProbeDep) -> AliveView:
    """Report whether the process can work: 200 if so, else 503.

    While MongoDB is away this process can work, and `/readyz` answers 503. A process that cannot work any
    more ends itself a few seconds later; a supervisor starts it again.
    """
    if not probe.works:
        detail = "the MongoDB client of this process is broken: start the process again"
        raise Problem(503, "not-alive", detail)
    return AliveView(alive=True)


@router.get("/readyz", responses={503: {"model": ReadyView, "description": "MongoDB does not answer"}})
async def ready(overview: OverviewDep, now: ClockDep, response: Response) -> ReadyView:
    """Report whether MongoDB answers: 200 if so, else 503.

    `bridge` is true while a bridge worker reports.
    """
    since = now() - _BRIDGE_REPORTS_WITHIN
    try:
        bridge = await asyncio.wait_for(overview.bridge_seen_since(since), _PING_SECONDS)
    except (RegistryError, asyncio.TimeoutError):
        response.status_code = 503
        return ReadyView(ready=False, mongo=False, bridge=False)
    return ReadyView(ready=True, mongo=True, bridge=bridge)
