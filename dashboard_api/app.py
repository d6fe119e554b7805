"""The application: services, rings around every request, routes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from broker_bridge.common.clock import utc_now
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.template_notes import Overview

from .bulk import routes as bulk
from .detected_persons import routes as persons
from .devices import command_routes as commands
from .devices import routes as devices
from .devices import site_routes as sites
from .devices import sync_routes as sync
from .edge import attendance_routes as visits
from .edge import routes as edge
from .erasures import routes as erasures
from .events import routes as events
from .external import routes as external
from .http import problems
from .http.middleware import BodyLimit, SecurityHeaders
from .identities import photo_routes as photos
from .identities import routes as identities
from .identities import seed_000_routes as identity
from .operations import audit_routes as audit
from .operations import health_routes as health
from .operations import pages
from .operations import whoami_routes as whoami
from .services.event_hub import EventHub
from .services.photos import FaceEmbedding, PhotoService
from .services.services import Services
from .settings import ApiSettings
from .training import routes as training

_PATIENCE_SECONDS = 2.0
_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document (RFC 9457) with a stable `code`",
        "content": {
            problems.MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "code"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "code": {"type": "string"},
                    },
                }
            }
        },
    }
}


@asynccontextmanager
async def _at_work(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """While the body runs, `work` does too; should it fail, that is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        # Before Python 3.12 a cancellation can be lost that comes in the same turn as an answer of MongoDB.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
    if not task.cancelled():
        task.result()


def create_app(
    registry: Registry,
    settings: ApiSettings,
    photo_embedder: FaceEmbedding | None = None,
    *,
    tracking: TrackingSettings | None = None,
    now: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """The API over `registry`, which stays the caller's to close. Without `photo_embedder` photos are off."""
    hub = EventHub(registry.events)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _at_work(registry.face_search.run()):
            yield
            await hub.stop()

    app = FastAPI(
        title="WFM Fleet",
        version=version("wfm-fleet"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=_PROBLEM,
    )
    app.state.services = Services(
        registry=registry,
        overview=Overview(registry.mongo),
        settings=settings,
        tracking=tracking or TrackingSettings(),
        hub=hub,
        photos=PhotoService(photo_embedder, asyncio.Lock()) if photo_embedder else None,
        now=now,
    )
    app.add_middleware(
        BodyLimit,
        json_max_bytes=settings.json_max_bytes,
        photo_max_bytes=settings.photo_max_bytes,
        ingest_max_bytes=settings.ingest_max_bytes,
    )
    problems.install(app)
    app.add_middleware(SecurityHeaders, content_security_policy=pages.CONTENT_SECURITY_POLICY)
    for noun in (
        identity,
        # Before `identities`, to which `bulk` would be somebody's user id.
        bulk,
        identities,
        erasures,
        photos,
        persons,
        devices,
        sites,
        commands,
        events,
        external,
        sync,
        audit,
        training,
        edge,
        visits,
        whoami,
        health,
    ):
        app.include_router(noun.router)
    pages.mount(app)
    return app
