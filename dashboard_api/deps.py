"""What routes are given: the services of this app, wired once in `create_app`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from broker_bridge.registry import Registry
from broker_bridge.registry.overview import Overview

from .live import EventHub
from .photos import Photos
from .problems import Problem
from .settings import ApiSettings


@dataclass(frozen=True)
class Services:
    """Everything a route may use. `now` is the wall clock in UTC; `photos` is None where they are off."""

    registry: Registry
    overview: Overview
    settings: ApiSettings
    hub: EventHub
    photos: Photos | None
    now: Callable[[], datetime]


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def require_json(request: Request) -> None:
    """Raise Problem 415 unless the body is declared as JSON."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/json":
        raise Problem(415, "media-type-unsupported", "send the body as application/json")


JSON_BODY = Depends(require_json)
