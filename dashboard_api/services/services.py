"""The services of the API, wired once in `create_app`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.template_notes import Overview
from broker_bridge.registry.mongo.probe import ConnectionProbe
from dashboard_api.settings import ApiSettings

from .event_hub import EventHub
from .key_watch import KeyWatch
from .photos import PhotoService


@dataclass(frozen=True)
class Services:
    """Hold every service of one app.

    `now` is the wall clock in UTC; `photos` is None where enrollment by photo is off.
    """

    registry: Registry
    overview: Overview
    settings: ApiSettings
    tracking: TrackingSettings
    hub: EventHub
    key_watch: KeyWatch
    probe: ConnectionProbe
    photos: PhotoService | None
    now: Callable[[], datetime]


async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
