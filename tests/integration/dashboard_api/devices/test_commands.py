"""Commands, the policies of sites, and the audit of both."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from tests.integration.dashboard_api.conftest import NOW, Clock, client_of, is_problem

ORDER = {"device_id": "cam-001", "name": "run_canary"}


@pytest.fixture(autouse=True)
async def cameras(registry: Registry) -> None:
    await registry.devices.register("cam-001", "lobby")
    await registry.devices.register("cam-002", "gate")


async def test_a_command_waits_until_the_bridge_publishes_it(api: httpx.AsyncClient) -> None:
    """The answer is a 202 with its id; it expires after a minute by default."""
    answer = await api.post("/api/v1/commands", json=ORDER)
    assert answer.status_code == 202
    shown = (await api.get(f"/api/v1/commands/{answer.json()['id']}")).json()
    assert shown == answer.json()
    assert (shown["state"], shown["requested_by"], shown["args"]) == ("waiting", "admin", {})
    assert (shown["created_at"], shown["expires_at"]) == (
        "2026-01-15T10:00:00.000Z",
        "2026-01-15T10:01:00.000Z",
    )
    longer = await api.post("/api/v1/commands", json={**ORDER, "expires_in_seconds": 3600})
    assert longer.json()["expires_at"] == "2026-01-15T11:00:00.000Z"


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"name": "open_door"}, 422, "command-unknown"),
        ({"device_id": "cam-404"}, 404, "device-unknown"),
        ({"device_id": "cam-001/#"}, 422, "request-invalid"),
        ({"name": "../up"}, 422, "request-invalid"),
        ({"expires_in_seconds": 0}, 422, "request-invalid"),
        ({"expires_in_seconds": 10**9}, 422, "request-invalid"),
        ({"args": {"a": "x" * 20_000}}, 422, "request-invalid"),
        ({"args": {"$ref": 1}}, 422, "request-invalid"),
        ({"arguments": {}}, 422, "request-invalid"),
    ],
)
async def test_an_invalid_command_is_rejected(
    api: httpx.AsyncClient, changed: dict[str, Any], status: int, code: str
) -> None:
    """Nothing is stored that a bridge could publish."""
    is_problem(await api.post("/api/v1/commands", json=ORDER | changed), status, code)
    assert (await api.get("/api/v1/commands")).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("args", ['{"a": "\\ud800"}', '{"\\ud800": 1}', '{"a": [{"b": "\\udfff x"}]}'])
async def test_half_a_surrogate_pair_in_the_arguments_is_rejected(api: httpx.AsyncClient, args: str) -> None:
    """MongoDB and the wire cannot store it; the body sends it as an escape."""
    body = f'{{"device_id": "cam-001", "name": "resync", "args": {args}}}'
    answer = await api.post("/api/v1/commands", content=body, headers={"Content-Type": "application/json"})
    is_problem(answer, 422, "request-invalid")


async def test_commands_are_listed_newest_first_by_device(api: httpx.AsyncClient, clock: Clock) -> None:
    """Pages neither skip nor repeat commands of the same instant."""
    command_ids = []
    for n in range(4):
        clock.now = NOW + timedelta(seconds=n // 2)
        command_ids.append((await api.post("/api/v1/commands", json=ORDER)).json()["id"])
        await api.post("/api/v1/commands", json={**ORDER, "device_id": "cam-002"})
    listed_ids: list[str] = []
    params: dict[str, Any] = {"device_id": "cam-001", "limit": 1}
    while True:
        page = (await api.get("/api/v1/commands", params=params)).json()
        listed_ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert listed_ids == sorted(command_ids[2:], reverse=True) + sorted(command_ids[:2], reverse=True)


async def test_a_site_is_opened_and_closed(api: httpx.AsyncClient) -> None:
    """The answer is the site; an unknown policy or site is rejected."""
    opened = await api.patch("/api/v1/sites/lobby", json={"enrollment_policy": "visitors"})
    assert opened.json() == {
        "site_id": "lobby", "enrollment_policy": "visitors", "registers_employees": False, "devices": 1,
        "head_version": 0,
    }  # fmt: skip
    sites = (await api.get("/api/v1/sites")).json()["items"]
    assert {item["site_id"]: item["enrollment_policy"] for item in sites} == {
        "gate": "closed",
        "lobby": "visitors",
    }
    nowhere = await api.patch("/api/v1/sites/nowhere", json={"enrollment_policy": "visitors"})
    is_problem(nowhere, 404, "not-found")
    is_problem(
        await api.patch("/api/v1/sites/lobby", json={"enrollment_policy": "all"}), 422, "request-invalid"
    )


async def test_every_change_is_in_the_audit(api: httpx.AsyncClient, clock: Clock) -> None:
    """Entries have author, change, values and time; a request without effect has none."""
    await api.patch("/api/v1/sites/lobby", json={"enrollment_policy": "visitors"})
    clock.now = NOW + timedelta(seconds=1)
    await api.patch("/api/v1/sites/lobby", json={"enrollment_policy": "visitors"})
    command = (await api.post("/api/v1/commands", json=ORDER)).json()
    entries, cursor = [], None
    for _ in range(4):
        params = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/api/v1/audit", params=params)).json()
        entries, cursor = entries + page["items"], page["next_cursor"]
    assert cursor is None
    # The cameras of this test were registered without an API key.
    entries = [item for item in entries if item["what"] != "device.registered"]
    assert [(item["who"], item["what"], item["subject"], item["at"]) for item in entries] == [
        ("admin", "command.run_canary", "cam-001", "2026-01-15T10:00:01.000Z"),
        ("admin", "site.enrollment-policy", "lobby", "2026-01-15T10:00:00.000Z"),
    ]
    assert entries[0]["after"] == {"command_id": command["id"], "args": {}}
    assert (entries[1]["before"], entries[1]["after"]) == (
        {"enrollment_policy": "closed"},
        {"enrollment_policy": "visitors"},
    )


@pytest.mark.parametrize("role", ["viewer", "source", "edge", "operator"])
async def test_each_role_has_its_rights(app: FastAPI, role: str) -> None:
    """Operators send commands, viewers read them, admins set policies."""
    async with client_of(app, role) as client:
        posted = await client.post("/api/v1/commands", json=ORDER)
        listed = await client.get("/api/v1/commands")
        patched = await client.patch("/api/v1/sites/lobby", json={"enrollment_policy": "visitors"})
        audited = await client.get("/api/v1/audit")
    assert posted.status_code == (202 if role == "operator" else 403)
    assert listed.status_code == (200 if role in ("operator", "viewer") else 403)
    assert (patched.status_code, audited.status_code) == (403, 403)
