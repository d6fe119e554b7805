"""What routes are given: the services of this app, wired once in `create_app`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request

from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.template_notes import Overview
from dashboard_api.http.problems import Problem
from dashboard_api.settings import ApiSettings

from .event_hub import EventHub
from .photos import PhotoService


@dataclass(frozen=True)
class Services:
    """Everything a route may use. `now` is the wall clock in UTC; `photos` is None where they are off."""

    registry: Registry
    overview: Overview
    settings: ApiSettings
    tracking: TrackingSettings
    hub: EventHub
    photos: PhotoService | None
    now: Callable[[], datetime]


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def require_json_type(request: Request) -> None:
    """Raise Problem 415 unless the body is declared as JSON."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/json":
        raise Problem(415, "media-type-unsupported", "send the body as application/json")


async def require_json(request: Request) -> None:
    """Raise Problem 415 unless the body is declared as JSON, 422 if an object in it has a name twice.

    Of two values the last one would count, while whoever looked at the body before us may have gone by the
    first (RFC 8259, section 4).
    """
    await require_json_type(request)
    # Once more, since FastAPI reads bodies without a look at names; it has found this one to be JSON.
    json.loads(await request.body() or b"null", object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise Problem(422, "request-invalid", "an object of the body has a name twice")


JSON_TYPE = Depends(require_json_type)
"""For a route that reads its body by itself."""
JSON_BODY = Depends(require_json)
