"""Keys of devices, invalid requests, and the page about polling."""

import asyncio
import json
import re
from datetime import datetime, timezone
from pathlib import Path

import httpx
from fastapi import FastAPI

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from deploy.local.stack import Mongod
from tests.conftest import StartProgram
from tests.integration.dashboard_api.conftest import Clock, client_of, is_problem
from tests.integration.dashboard_api.test_program import ARGS, settings

SYNC = "/api/edge/sync"


async def test_an_edge_key_belongs_to_a_device_and_opens_nothing_else(
    app: FastAPI, registry: Registry, cam_a: httpx.AsyncClient
) -> None:
    """Without a registered device it gets 403; other roles may not poll."""
    async with client_of(app, "edge") as unbound:
        is_problem(await unbound.get(SYNC), 403, "key-without-device")
    async with client_of(app, "admin") as admin:
        is_problem(await admin.get(SYNC), 403, "key-without-device")
    for role in ("viewer", "operator", "source"):
        async with client_of(app, role) as client:
            for path in ("confirm", "visitors", "visits"):
                is_problem(await client.post(f"/api/edge/{path}", json={}), 403, "role-insufficient")
    for method, path in (("GET", "/api/v1/identities"), ("GET", "/api/v1/identities/EMP-1/visits")):
        is_problem(await cam_a.request(method, path), 403, "role-insufficient")
    await registry.mongo.db.devices.update_one({"_id": "cam-a"}, {"$unset": {"site_id": ""}})
    is_problem(await cam_a.get(SYNC), 403, "device-unknown")


def test_a_key_is_created_for_a_registered_device(
    mongod: Mongod, mongo_database: str, registry: Registry, start_program: StartProgram
) -> None:
    """A sentence explains what to do first; other roles have no device."""
    env = settings(mongod, mongo_database, photos=False)

    def new_key(*more: str) -> tuple[int, str]:
        maker = start_program([*ARGS, "new-key", "door", *more], env)
        return maker.wait(60), maker.output()

    status, document = new_key("--role", "edge", "--device", "cam-9")
    assert (status, "cam-9 is not registered" in document) == (2, True)
    for wrong in (["--role", "edge"], ["--role", "viewer", "--device", "cam-9"]):
        assert new_key(*wrong)[0] == 2
    assert "Traceback" not in document


async def test_the_key_of_a_device_is_bound_to_it(
    mongod: Mongod, mongo_database: str, registry: Registry, start_program: StartProgram
) -> None:
    """The program creates it with the device id."""
    await registry.devices.register("cam-9", "lobby")
    env = settings(mongod, mongo_database, photos=False)
    maker = start_program([*ARGS, "new-key", "door", "--role", "edge", "--device", "cam-9"], env)
    assert await asyncio.to_thread(maker.wait, 20) == 0
    key = await registry.api_keys.find(maker.output().strip())
    assert key is not None
    assert (key.role, key.device_id) == ("edge", "cam-9")


NO_POSITIONS = [
    "since=-1",
    "since=1e3",
    "since=1.5",
    "since=" + "9" * 19,
    "since=" + "9" * 60,
    "since=",
    "since=yesterday",
    "since=2026-01-15",
    "since=2026-01-15T10:00:00",
    "since=2026-01-15T10:00:00+01:00",
    "since=2026-13-45T10:00:00Z",
    "since=0001-01-01T00:00:00%2B12:00",
    "since=%00",
    "since=%D9%A1",
    "since[$gt]=1&since={}",
    "since=" + "1" * 10_000,
    "epoch=XYZ",
    "epoch[$ne]=a&epoch=$ne",
    "limit=0",
    "limit=-5",
    "limit=99999999999",
    "reset_head_version=-1",
    "reset_head_version=99999999999999999999",
    "spaces=face:test-8,$where",
    "spaces=" + "x" * 2000,
    "vectors=maybe",
]


async def test_an_invalid_position_is_rejected(cam_a: httpx.AsyncClient) -> None:
    """Odd times, negative and huge versions, operators, and a + that was not encoded."""
    for query in NO_POSITIONS:
        answer = await cam_a.get(f"{SYNC}?{query}")
        assert answer.status_code == 422, (query, answer.text)
        is_problem(answer, 422, answer.json()["code"])
        assert len(answer.text) < 2000


PAGE = (Path(__file__).parents[4] / "docs" / "edge-http.md").read_text(encoding="utf-8")
CALLS = re.findall(
    r"""^curl -s -H "\$AUTH"(?: -H "\$JSON")? "\$API(\S+)"(?: -d '(.+)')?$""", PAGE, re.MULTILINE
)


async def test_the_page_can_be_followed_with_curl(
    cam_a: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """Each call of the page gets the answer below it, or one with the same fields."""
    clock.now = datetime(2026, 1, 15, 10, 5, tzinfo=timezone.utc)
    await registry.identities.enroll(EnrollIdentity("EMP-12345", sites=("lobby",)))
    await registry.sites.set_policy("lobby", "visitors", by="tester", at=clock.now)
    await registry.spaces.ensure(EmbeddingSpace("face:example", 4))
    epoch = (await registry.versions.read()).epoch
    shown = [json.loads(block) for block in re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)]
    answers = []
    for call in CALLS:
        path, body = (text.replace("9f2c41d07ab3e658", epoch).replace("813", "1") for text in call)
        document = json.loads(body) if body else None
        if document and path.endswith("visitors"):
            document["space"] = "face:example"
        answer = await (cam_a.post(path, json=document) if document else cam_a.get(path))
        assert answer.is_success, answer.text
        answers.append(answer.json())
    assert len(CALLS) == 5
    snapshot, _, _, visitor, visits = answers
    assert [set(item) for item in (snapshot, visitor, visits)] == [set(item) for item in shown]
    assert set(snapshot["changes"][0]) == set(shown[0]["changes"][0])
    assert (visits["recorded"], visits["errors"]) == (1, [])
