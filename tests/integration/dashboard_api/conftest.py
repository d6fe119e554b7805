"""Fixtures and helpers for tests of the API."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Event
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.events.model import IncomingEvent
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mongod
from tests.space_limits import ensure_with_limits

FACE = "face:test-8"
GAIT = "gait:test-4"
NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
JPEG = b"\xff\xd8\xff\xe0 a photo of a face \xff\xd9"
KEYS = {role: f"key-of-the-{role}" for role in ("admin", "operator", "viewer", "source", "edge")}


def vector(n: int, dimension: int = 8) -> list[float]:
    """Return a direction that differs for each small `n`."""
    return [1.0 + (n * 7 + position * position * (n + 1)) % 11 for position in range(dimension)]


@dataclass(frozen=True)
class FoundFace:
    vector: bytes
    quality: float


@dataclass
class FakeEmbedder:
    """A face embedding without vision code; a JPEG with `faceless` in it has none."""

    photo_sizes: list[int] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None

    def embed_photo(self, data: bytes, /) -> FoundFace:
        self.photo_sizes.append(len(data))
        self.before_answer()
        if not data.startswith(b"\xff\xd8"):
            raise ContractError("photo-invalid", "a photo is a JPEG or PNG")
        if b"faceless" in data:
            raise ContractError("photo-no-face", "no face was found")
        return FoundFace(normalise(vector(sum(data) % 50), 8), 0.8)


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def api_settings() -> ApiSettings:
    return ApiSettings(default_spaces={"face": FACE, "gait": GAIT}, photo_max_bytes=64 * 1024)


@pytest.fixture
async def registry(mongod: Mongod, mongo_database: str) -> AsyncIterator[Registry]:
    """Yield a fresh registry with two small spaces and a key of each role."""
    opened = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    await ensure_with_limits(opened, EmbeddingSpace(FACE, 8), EmbeddingSpace(GAIT, 4))
    for role, secret in KEYS.items():
        await opened.api_keys.create(role, role, secret)  # type: ignore[arg-type]
    yield opened
    await opened.close()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(registry: Registry, api_settings: ApiSettings, embedder: FakeEmbedder, clock: Clock) -> FastAPI:
    return create_app(registry, api_settings, embedder, now=clock)


def client_of(app: FastAPI, role: str | None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {KEYS[role]}"} if role else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the key of the admin."""
    async with client_of(app, "admin") as client:
        yield client


@pytest.fixture
def real_time(clock: Clock) -> None:
    """Set the clock of the API to the time of the registry, which dates identities."""
    clock.now = datetime.now(timezone.utc)


async def device_client(
    app: FastAPI, registry: Registry, device_id: str, site: str, **more: Any
) -> httpx.AsyncClient:
    """Return a client with the key of a device that is registered at `site`."""
    await registry.devices.register(device_id, site, **more)
    await registry.api_keys.create(device_id, "edge", f"key-of-{device_id}", device_id)
    client = client_of(app, None)
    client.headers["Authorization"] = f"Bearer key-of-{device_id}"
    return client


@pytest.fixture
async def cam_a(app: FastAPI, registry: Registry, real_time: None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of `cam-a` at the lobby."""
    async with await device_client(app, registry, "cam-a", "lobby") as client:
        yield client


@pytest.fixture
async def cam_b(app: FastAPI, registry: Registry, real_time: None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of `cam-b` at the gate."""
    async with await device_client(app, registry, "cam-b", "gate") as client:
        yield client


def event(n: int, device: str = "cam-001", **changed: Any) -> IncomingEvent:
    fields = {
        "event_id": f"EV1-1736942400000-{n:06x}",
        "device_id": device,
        "user_id": "EMP-12345",
        "event_type": "facial_id",
        "timestamp": "2026-01-15T10:00:00.000Z",
        "confidence": 0.92,
        "metadata": {"distance": 0.28},
    }
    received_at = changed.pop("received_at", NOW)
    return IncomingEvent(Event.model_validate(fields | changed), "lobby", received_at)


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem document of an answer with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(document)
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:wfm:problem:{code}"
    return document
