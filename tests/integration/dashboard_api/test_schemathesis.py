"""The API does what its OpenAPI document says: Schemathesis finds nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mongod
from tests.integration.dashboard_api.conftest import FACE, GAIT, KEYS, FakeEmbedder

schemathesis = pytest.importorskip("schemathesis", reason="it needs a newer Python")
engine = pytest.importorskip("schemathesis.engine")
events = pytest.importorskip("schemathesis.engine.events")
asgi = pytest.importorskip("schemathesis.python.asgi")

EDGE_KEY = "key-of-cam-a"
NEVER_END = ["/api/v1/events/stream"]
"""A live stream; the tests of `events` follow it."""
UNSTATED = (
    "position is more than total",  # two numbers of a body cannot be compared
    "expected a time in the future",
    # Generators of clients read no schema that refers to itself, as that of the values in `args` would.
    *("an integer fits into 64 bits", "a key has 1 to", "nests at most"),
    "mode=add takes photos alone",  # Schemathesis evaluates no condition beside a file
    # Two parts of a request that go together, or are of one order.
    *("source says where", "calibrated limits name", "must be at most", "has no faces"),
    *("cannot replace itself", "are of different modalities"),
)
"""Reasons for a 422 that JSON Schema cannot state."""
# `positive_data_acceptance` has no exception for a refusal by what is in the registry: see `is_understood`.
# The other two send requests without a key, as `tests/integration/dashboard_api/keys` does.
LEFT_OUT = ("positive_data_acceptance", "ignored_auth", "object_level_authorization")
PHASES = ("examples", "coverage", "fuzzing", "stateful")


@dataclass
class OpenedInLifespan:
    """The API, whose registry is opened in the event loop that serves it."""

    mongo: MongoSettings
    app: FastAPI | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            assert self.app
            await self.app(scope, receive, send)
            return
        registry = await Registry.open(self.mongo)
        try:
            await self._prepare(registry)
            settings = ApiSettings(default_spaces={"face": FACE, "gait": GAIT}, photo_max_bytes=64 * 1024)
            self.app = create_app(registry, settings, FakeEmbedder())
            await self.app(scope, receive, send)
        finally:
            await registry.close()

    async def _prepare(self, registry: Registry) -> None:
        await registry.spaces.ensure(EmbeddingSpace(FACE, 8))
        await registry.spaces.ensure(EmbeddingSpace(GAIT, 4))
        await registry.api_keys.create("admin", "admin", KEYS["admin"])
        await registry.devices.register("cam-a", "lobby")
        await registry.api_keys.create("cam-a", "edge", EDGE_KEY, "cam-a")
        policy = {"enrollment_policy": "visitors"}
        await registry.sites.change("lobby", policy, by="test", at=datetime.now(timezone.utc))


@pytest.fixture
def served(mongod: Mongod, mongo_database: str) -> Iterator[OpenedInLifespan]:
    yield OpenedInLifespan(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    asgi.shutdown_lifespans()


@schemathesis.check
def is_understood(_: Any, response: Any, case: Any) -> None:
    """What the schema allows is refused by a code of its own alone."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code in (400, 413, 415, 422):
        problem = response.json()
        codes = ("request-invalid", "request-unreadable", "cursor-invalid", "media-type-unsupported")
        stated = problem["code"] in codes and not any(reason in problem["detail"] for reason in UNSTATED)
        assert not stated, f"a valid request got {problem['code']}: {problem['detail']}"


def run(served: OpenedInLifespan, examples: int, phases: tuple[str, ...]) -> tuple[int, list[str]]:
    """Return the number of requests, and what is wrong with their answers."""
    settings = {
        "seed": 1,
        "continue-on-failure": True,
        "headers": {"Authorization": f"Bearer {KEYS['admin']}"},
        "operations": [
            {"include-path-regex": "^/api/edge/", "headers": {"Authorization": f"Bearer {EDGE_KEY}"}}
        ],
        "generation": {"max-examples": examples, "database": "none"},
        "phases": {phase: {"enabled": phase in phases} for phase in PHASES},
        "checks": {check: {"enabled": False} for check in LEFT_OUT},
    }
    config = schemathesis.Config.from_dict(settings)
    schema = schemathesis.openapi.from_asgi("/openapi.json", served, config=config).exclude(path=NEVER_END)
    requests, found = 0, []
    for event in engine.from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            found.append(f"{getattr(event, 'label', '')}: {getattr(event, 'info', event)}")
        if isinstance(event, events.ScenarioFinished):
            requests += len(event.recorder.interactions)
            found += failures_of(event.recorder)
    return requests, found


def failures_of(recorder: Any) -> Iterator[str]:
    """Return the failed checks of an operation, each with its request and answer."""
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info:
                answer = recorder.interactions[case_id].response
                yield (
                    f"{recorder.label} {check.name}: {check.failure_info.failure.message}\n"
                    f"{check.failure_info.code_sample[:1500]}\n{answer.status_code} {answer.content[:500]!r}"
                )


def test_examples_and_edges_of_every_operation(served: OpenedInLifespan) -> None:
    """Bounds, missing and wrong fields, other methods, and the documented examples."""
    requests, found = run(served, 1, ("examples", "coverage"))
    assert found == [], "\n\n".join(found)
    assert requests > 1000


@pytest.mark.long
def test_random_requests_to_every_operation(served: OpenedInLifespan) -> None:
    """Valid and invalid requests, alone and in a row with ids of earlier answers."""
    requests, found = run(served, 50, ("fuzzing", "stateful"))
    assert found == [], "\n\n".join(found)
    assert requests > 1000
