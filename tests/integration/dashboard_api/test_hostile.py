"""Every writing route rejects hostile input and stores nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from dashboard_api.bulk.views import BulkIdentity
from dashboard_api.http.openapi import inline_schema
from tests.detected_samples import seen, write_person

from .conftest import FACE, JPEG, NOW, client_of, vector
from .hostile_bodies import TWICE, Route, invalid_bodies, smallest_value, writing_routes

# Rules that a schema cannot express: exactly one of two fields, at least one of several.
EXAMPLES = {
    "/api/v1/sites/{site_id}": {"enrollment_policy": "visitors"},
    "/api/detected-persons/search-by-face": {"face_embedding": vector(1)},
    "/api/training/submit": {"config": {"source_system": "alfred", "batch_id": "b1"}},
}
# The parser of these routes accepts many megabytes; of two values of a name it takes the last.
READ_AT_ONCE = {"/api/identities/sync", "/api/identities/ingest-embeddings"}
HOSTILE_PATHS = ["a%2Fb", "a%2Bb", "a%23b", "a%00b", "%24where", "%7B%22%24ne%22%3A1%7D", "..", "%2e%2e",
    "%D0%95MP-12345", "a%0A", "%ED%A0%80", "%FF", "x" * 20_000]  # fmt: skip


@pytest.fixture
def routes(app: FastAPI) -> list[Route]:
    document = app.openapi()
    bulk = document["components"]["schemas"]["BulkBody"]["properties"]["people"]
    bulk["items"] = inline_schema(BulkIdentity)
    return writing_routes(document)


@pytest.fixture
async def names(registry: Registry, api: httpx.AsyncClient) -> dict[str, str]:
    """Create one object of each kind that a path can name, and return the names."""
    identity = {"user_id": "EMP-12345", "templates": [{"space": FACE, "embedding": vector(1)}]}
    await api.post("/api/v1/identities", json=identity)
    await api.post("/api/v1/devices", json={"device_id": "cam-001", "site_id": "lobby"})
    job_order = {"job_type": "face_detect_embed", "config": {"source_system": "a", "batch_id": "b"}}
    job = await api.post("/api/training/submit", json=job_order)
    return {
        "user_id": "EMP-12345",
        "name": "EMP-12345",
        "modality": "face",
        "site_id": "lobby",
        "job_id": job.json()["job_id"],
        "device_id": "cam-001",
        "space": FACE,
        "global_id": str(await write_person(registry, [seen("cam-001", NOW)])),
    }


class Clients:
    """Send requests as admin, or as a device where the admin lacks the right."""

    def __init__(self, *clients: httpx.AsyncClient) -> None:
        self._clients = clients

    async def send(self, method: str, path: str, content: bytes | None, kind: str) -> httpx.Response:
        for client in self._clients:
            answer = await client.request(method, path, content=content, headers={"content-type": kind})
            if answer.status_code != 403:
                break
        return answer


@pytest.fixture
async def clients(app: FastAPI, registry: Registry) -> AsyncIterator[Clients]:
    secret = await registry.api_keys.create("cam-001", "edge", device_id="cam-001")
    async with client_of(app, "admin") as admin, client_of(app, None) as device:
        device.headers["Authorization"] = f"Bearer {secret}"
        yield Clients(admin, device)


async def all_documents(registry: Registry) -> dict[str, list[Any]]:
    """Return every document of every collection except API keys."""
    database = registry.mongo.db
    kept: dict[str, list[Any]] = {}
    for name in sorted(set(await database.list_collection_names()) - {"api_keys"}):
        kept[name] = [entry async for entry in database[name].find({}).sort("_id", 1)]
    return kept


def example(route: Route) -> Any:
    return smallest_value(route.body or {}) | EXAMPLES.get(route.path, {})


def is_refused(answer: httpx.Response, *, item: bool = False) -> bool:
    """Return whether an answer rejects the request, or the item of a list."""
    body = answer.json()
    if item and answer.status_code == 200:
        return '"code"' in answer.text
    problem = answer.headers["content-type"] == "application/problem+json"
    return problem and 400 <= answer.status_code < 500 and bool(body["code"]) and len(answer.content) < 20_000


async def test_the_example_bodies_are_valid(
    clients: Clients, routes: list[Route], names: dict[str, str]
) -> None:
    """Without this a rejection below could have another reason."""
    refused = []
    for route in (entry for entry in routes if entry.body):
        content = json.dumps(example(route)).encode()
        answer = await clients.send(route.method, route.path.format(**names), content, "application/json")
        if answer.status_code == 403 or answer.json().get("code") == "request-invalid":
            refused.append(f"{route}: {answer.text}")
    assert not refused
    assert len(routes) > 20


async def test_no_body_with_one_mistake_stores_anything(
    clients: Clients, routes: list[Route], names: dict[str, str], registry: Registry
) -> None:
    """Unknown fields, operators, look-alike characters and huge values are rejected."""
    accepted, sent = [], 0
    for route in (entry for entry in routes if entry.body):
        before = await all_documents(registry)
        for case in invalid_bodies(route.body or {}, example(route)):
            if case.what.endswith(TWICE) and route.path in READ_AT_ONCE:
                continue
            path = route.path.format(**names)
            answer = await clients.send(route.method, path, case.content, "application/json")
            sent += 1
            if not is_refused(answer, item=case.within_list):
                accepted.append(f"{route}, {case.what}: {answer.status_code} {answer.text[:200]}")
        if before != await all_documents(registry):
            accepted.append(f"{route} has stored something")
            break
    assert not accepted, "\n".join(accepted)
    assert sent > 500


async def test_no_hostile_path_stores_anything(
    clients: Clients, routes: list[Route], names: dict[str, str], registry: Registry
) -> None:
    """Slashes, operators, look-alikes and bytes that are no UTF-8 are rejected."""
    before, accepted = await all_documents(registry), []
    for route in routes:
        for parameter in route.parameters:
            for hostile in HOSTILE_PATHS:
                path = route.path.format(**names | {parameter: hostile})
                content = json.dumps(example(route)).encode() if route.body else None
                kind = "application/json"
                if path.endswith("/photos"):
                    content, kind = JPEG, "image/jpeg"
                answer = await clients.send(route.method, path, content, kind)
                if not is_refused(answer):
                    accepted.append(
                        f"{route}, {parameter}={hostile[:30]}: {answer.status_code} {answer.text[:200]}"
                    )
    assert not accepted, "\n".join(accepted)
    assert before == await all_documents(registry)
