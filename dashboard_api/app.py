"""Build the application: services, middleware, routes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import BaseRoute

from broker_bridge.common.clock import utc_now
from broker_bridge.common.tasks import cancel_and_wait
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.identities.template_notes import Overview
from broker_bridge.registry.mongo.probe import ConnectionProbe

from .bulk import routes as bulk
from .detected_persons import routes as detected_persons
from .devices import command_routes, site_routes
from .devices import routes as devices
from .devices import sync_routes as device_sync_routes
from .edge import attendance_routes, visit_routes
from .edge import sync_routes as edge_sync_routes
from .erasures import routes as erasures
from .events import routes as events
from .external import routes as external
from .http.middleware import BodyLimit, SecurityHeaders
from .http.openapi import install_openapi, note_roles
from .http.problems import install_problem_handlers
from .http.query_parameters import refuse_unknown_parameters
from .identities import enrollment_routes, photo_routes, seed_000_routes
from .identities import routes as identities
from .keys import routes as keys
from .operations import audit_routes, health_routes, pages, whoami_routes
from .services.event_hub import EventHub
from .services.key_watch import KeyWatch, WatchKeys
from .services.photos import FaceEmbedding, PhotoService
from .services.security import authenticate
from .services.services import Services
from .settings import ApiSettings
from .training import routes as training

_LAST_LOOK_SECONDS = 0.5

_ROUTERS = (
    seed_000_routes.router,
    # Before `identities`, which would take the path segment `bulk` for a user id.
    bulk.router,
    identities.router,
    erasures.router,
    enrollment_routes.router,
    photo_routes.router,
    detected_persons.router,
    devices.router,
    site_routes.router,
    command_routes.router,
    events.router,
    external.router,
    device_sync_routes.router,
    audit_routes.router,
    training.router,
    edge_sync_routes.router,
    visit_routes.router,
    attendance_routes.router,
    keys.router,
    whoami_routes.router,
)


def create_app(
    registry: Registry,
    settings: ApiSettings,
    photo_embedder: FaceEmbedding | None = None,
    *,
    tracking: TrackingSettings | None = None,
    now: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """Return the API over `registry`, which the caller closes.

    Without `photo_embedder` enrollment by photo is off.
    """
    services = Services(
        registry=registry,
        overview=Overview(registry.mongo),
        settings=settings,
        tracking=tracking or TrackingSettings(),
        hub=EventHub(registry.events),
        key_watch=KeyWatch(registry.api_keys, now),
        probe=ConnectionProbe(registry.mongo),
        photos=PhotoService(photo_embedder, asyncio.Lock()) if photo_embedder else None,
        now=now,
    )
    app = FastAPI(
        title="WFM Fleet",
        version=version("wfm-fleet"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan_of(services),
        routes=[*_routes()],
    )
    app.state.services = services
    _add_middleware(app, services)
    install_openapi(app)
    pages.mount_pages(app)
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Return the routes of the REST API, the same for each application.

    FastAPI prepares them at the first request, which takes long: once for this process.
    """
    routes = APIRouter()
    checked = [Depends(refuse_unknown_parameters)]
    for router in _ROUTERS:
        note_roles(router.routes)
        # The key first: an answer to a request without one tells nothing of the parameters.
        routes.include_router(router, dependencies=[Depends(authenticate), *checked])
    note_roles(health_routes.router.routes)
    routes.include_router(health_routes.router, dependencies=checked)
    return tuple(routes.routes)


def _lifespan_of(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            _background_task(services.key_watch.run()) as watching,
            _background_task(services.registry.face_search.follow_changes()),
            _background_task(services.probe.probe_regularly()),
            _background_task(services.registry.edge_polling.watch_history()),
        ):
            yield
            await services.hub.stop()
            services.key_watch.stop()
            # MongoDB may be away: the last uses of keys are worth a moment, no more.
            await asyncio.wait({watching}, timeout=_LAST_LOOK_SECONDS)

    return lifespan


@asynccontextmanager
async def _background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run `work` while the body runs; raise its error, if any, at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await cancel_and_wait([task])
    if not task.cancelled():
        task.result()


def _add_middleware(app: FastAPI, services: Services) -> None:
    """Add the middleware from the innermost to the outermost."""
    settings = services.settings
    app.add_middleware(WatchKeys, watch=services.key_watch)
    app.add_middleware(
        BodyLimit,
        json_max_bytes=settings.json_max_bytes,
        photo_max_bytes=settings.photo_max_bytes,
        enrollment_max_bytes=settings.enrollment_max_bytes,
        ingest_max_bytes=settings.ingest_max_bytes,
    )
    install_problem_handlers(app)
    app.add_middleware(SecurityHeaders, content_security_policy=pages.CONTENT_SECURITY_POLICY)
