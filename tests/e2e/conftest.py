"""A running dashboard and a page of it in a real browser."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Browser, Page, Request, async_playwright, expect
from pydantic import SecretStr

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.events.model import IncomingEvent
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.registry.workers import Workers
from dashboard_api.app import create_app
from dashboard_api.server import Server, listen
from dashboard_api.settings import ApiProgram, ApiSettings
from deploy.local.stack import Mongod, free_port
from tests.space_limits import ensure_with_limits

KEY = "key-of-an-operator"
BRIDGE = "bridge-1"
SPACE = EmbeddingSpace(DEFAULT_FACE_SPACE.space, DEFAULT_FACE_SPACE.dimension)
EVIL = "<img src=x onerror=document.title='owned'>"

# Longer than anything takes on a machine whose cores are busy; five seconds are the default.
expect.set_options(timeout=30_000)


@dataclass(frozen=True)
class FoundFace:
    vector: bytes
    quality: float
    warnings: tuple[Any, ...] = ()


class OneFace:
    """Fake face embedding that finds a face in every photo without `faceless` in it."""

    def embed_photo(self, data: bytes, /) -> FoundFace:
        if b"faceless" in data:
            raise ContractError("photo-no-face", "no face was found")
        blurred = SimpleNamespace(code="photo-blurred", detail="the face is blurred: hold the camera still")
        return FoundFace(
            normalise([1.0 + n + len(data) for n in range(512)], 512),
            0.9,
            (blurred,) if b"blurred" in data else (),
        )


@dataclass
class Board:
    """A running dashboard with the registry behind it."""

    registry: Registry
    url: str

    async def applied(self, device_id: str, version: int) -> None:
        epoch = (await self.registry.versions.read()).epoch
        applied = {"epoch": epoch, "version": version, "spaces": {}}
        await self.registry.devices.record_reports(
            [DeviceReport.latest(device_id, "applied", applied, now())]
        )

    async def recognised(
        self, n: int, user_id: str | None, image: str | None = None, liveness: object = None
    ) -> None:
        """Record an event; a malformed `liveness` is one from before it was defined."""
        code, kind = ("EV1", "facial_id") if user_id else ("EV4", "unknown")
        event = Event.model_validate(
            {
                "event_id": f"{code}-1736942400000-{n:06x}",
                "device_id": "cam-001",
                "user_id": user_id,
                "event_type": kind,
                "timestamp": format_time(now()),
                "confidence": 0.92,
                "image": image,
            }
        )
        if liveness is not None:
            event = event.model_copy(update={"metadata": {"liveness": liveness}})
        await self.registry.events.record([IncomingEvent(event, "lobby", now())])


def now() -> datetime:
    return datetime.now(timezone.utc)


async def fill_registry(registry: Registry) -> None:
    await ensure_with_limits(registry, SPACE)
    await registry.api_keys.create("operator", "operator", KEY)
    # A report from the future stands for a worker that keeps reporting.
    await Workers(registry.mongo).report(BRIDGE, {}, now() + timedelta(hours=1))
    for n, device_id in enumerate(["cam-001", "cam-002"]):
        await registry.devices.register(device_id, "lobby")
        heartbeat = {"fps": 14.8 + n, "outbox_depth": n * 3}
        await registry.devices.record_reports(
            [
                DeviceReport.status(device_id, "online", "1", now(), now()),
                DeviceReport.latest(device_id, "heartbeat", heartbeat, now()),
            ]
        )
    for n, (user_id, name) in enumerate([("EMP-12345", "Ana Petrova"), ("EMP-777", EVIL), ("VIS-9", None)]):
        template = Template(
            SPACE.id, normalise([1.0 + (n + position) % 7 for position in range(512)], 512), 0.8
        )
        await registry.identities.enroll(
            EnrollIdentity(user_id, (template,), display_name=name, flag="vip" if n == 0 else None)
        )


@pytest_asyncio.fixture(loop_scope="session")
async def board(mongod: Mongod, mongo_database: str) -> AsyncIterator[Board]:
    registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    await fill_registry(registry)
    # A long timeout: detected persons stay active for the whole test on a busy machine.
    tracking = TrackingSettings(person_timeout=600)
    app: FastAPI = create_app(registry, ApiSettings(), OneFace(), tracking=tracking)
    port = free_port()
    with listen("127.0.0.1", port) as sock:
        server = Server(app, ApiProgram())
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        board = Board(registry, f"http://127.0.0.1:{port}")
        await board.applied("cam-001", 3)
        await board.applied("cam-002", 2)
        yield board
        server.should_exit = True
        await asyncio.wait_for(serving, 15)
    await registry.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Start a browser for all tests, which run in the event loop of the session."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is not on PATH: run `make setup`, or install the package chromium"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(board: Board, browser: Browser) -> AsyncIterator[Page]:
    """Yield a page without cookies or storage of another test.

    Fails on foreign requests, script errors and policy errors.
    """
    foreign_urls: list[str] = []
    errors: list[str] = []
    first_url = board.url

    def note_request(request: Request) -> None:
        if not request.url.startswith((first_url, board.url, "blob:", "data:")):
            foreign_urls.append(request.url)

    async with await browser.new_context(viewport={"width": 1280, "height": 860}) as context:
        page = await context.new_page()
        page.on("request", note_request)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        await page.goto(board.url)
        yield page
        await picture(page, "last")
    assert foreign_urls == []
    assert errors == []


async def picture(page: Page, name: str) -> None:
    """Save a screenshot in the folder of WFM_SCREENSHOTS, if it is set."""
    folder = os.environ.get("WFM_SCREENSHOTS")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


async def sign_in(page: Page, key: str = KEY) -> None:
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
