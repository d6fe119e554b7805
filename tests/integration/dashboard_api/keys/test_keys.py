"""API keys are listed, created with an expiry, and revoked, over REST."""

import asyncio
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import Registry
from dashboard_api.services.key_watch import KeyWatch
from tests.integration.dashboard_api.conftest import KEYS, NOW, Clock, client_of, is_problem

PATH = "/api/v1/keys"


def with_key(app: FastAPI, text: str) -> httpx.AsyncClient:
    client = client_of(app, None)
    client.headers["Authorization"] = f"Bearer {text}"
    return client


async def records(api: httpx.AsyncClient) -> dict[str, dict[str, object]]:
    """Return the listed keys by name."""
    return {item["name"]: item for item in (await api.get(PATH)).json()["items"]}


async def test_a_list_never_shows_a_key_or_its_hash(api: httpx.AsyncClient, registry: Registry) -> None:
    """No part of a text or of a hash is in the answer."""
    created = (await api.post(PATH, json={"name": "wall", "role": "viewer"})).json()
    answer = await api.get(PATH)
    listed = {item["name"]: item for item in answer.json()["items"]}
    assert set(listed) == {*KEYS, "wall"}
    assert listed["wall"] == {name: value for name, value in created.items() if name != "key"}
    assert (listed["wall"]["state"], listed["wall"]["expires_at"]) == ("active", None)
    hashes = [found["_id"] async for found in registry.mongo.db.api_keys.find()]
    for secret in [created["key"], *KEYS.values(), *(digest[:8] for digest in hashes)]:
        assert secret not in answer.text


async def test_a_list_is_paged_without_a_gap(api: httpx.AsyncClient) -> None:
    """Pages of two have every key once, newest first."""
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(PATH, params={"limit": "2", **cursor})).json()
        names += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(names) == sorted(KEYS)


async def test_a_key_stops_at_its_expiry(api: httpx.AsyncClient, app: FastAPI, clock: Clock) -> None:
    """It works until then, stays listed as expired, and can be revoked."""
    expires_at = NOW + timedelta(hours=1)
    body = {"name": "visitor", "expires_at": expires_at.isoformat()}
    created = (await api.post(PATH, json=body)).json()
    assert created["expires_at"] == "2026-01-15T11:00:00.000Z"
    async with with_key(app, created["key"]) as client:
        clock.now = expires_at - timedelta(milliseconds=1)
        assert (await client.get("/api/v1/whoami")).json() == {"name": "visitor", "role": "viewer"}
        clock.now = expires_at
        is_problem(await client.get("/api/v1/whoami"), 401, "key-invalid")
    assert (await records(api))["visitor"]["state"] == "expired"
    assert (await api.delete(f"{PATH}/{created['key_id']}")).json()["state"] == "revoked"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "x", "expires_at": "2026-01-15T10:00:00Z"}, 422, "request-invalid"),
        ({"name": "x", "expires_at": "2025-01-01T00:00:00Z"}, 422, "request-invalid"),
        ({"name": "x", "expires_at": "2027-01-01T00:00:00"}, 422, "request-invalid"),
        ({"name": "x", "expires_at": 1.5}, 422, "request-invalid"),
        ({"name": "x", "role": "king"}, 422, "request-invalid"),
        ({"name": "x", "role": "edge"}, 422, "request-invalid"),
        ({"name": "x", "role": "viewer", "device_id": "cam-1"}, 422, "request-invalid"),
        ({"name": "x", "role": "edge", "device_id": "cam-1"}, 404, "device-unknown"),
        ({"name": ""}, 422, "request-invalid"),
        ({"name": "two\nlines"}, 422, "request-invalid"),
        ({"name": "x", "key": "mine"}, 422, "request-invalid"),
    ],
)
async def test_a_wrong_key_is_not_created(
    api: httpx.AsyncClient, body: dict[str, object], status: int, code: str
) -> None:
    """The answer is a problem, and the list of keys stays as it was."""
    is_problem(await api.post(PATH, json=body), status, code)
    assert set(await records(api)) == set(KEYS)


@pytest.mark.parametrize("role", ["operator", "viewer", "source", "edge"])
async def test_only_an_admin_manages_keys(app: FastAPI, role: str) -> None:
    """Every other role gets 403 on each of the three operations."""
    async with client_of(app, role) as client:
        is_problem(await client.get(PATH), 403, "role-insufficient")
        is_problem(await client.post(PATH, json={"name": "x", "role": "admin"}), 403, "role-insufficient")
        is_problem(await client.delete(f"{PATH}/{'0' * 16}"), 403, "role-insufficient")


@pytest.mark.parametrize("role", ["operator", "viewer", "source", "edge"])
async def test_a_revoked_key_of_any_role_is_rejected(api: httpx.AsyncClient, app: FastAPI, role: str) -> None:
    """A second revocation changes neither the record nor the audit."""
    created = (await api.post(PATH, json={"name": "spare", "role": "admin"})).json()
    key_id = (await records(api))[role]["key_id"]
    revoked = (await api.delete(f"{PATH}/{key_id}")).json()
    assert (revoked["state"], revoked["revoked_at"]) == ("revoked", "2026-01-15T10:00:00.000Z")
    assert (await api.delete(f"{PATH}/{key_id}")).json() == revoked
    async with client_of(app, role) as client:
        is_problem(await client.get("/api/v1/whoami"), 401, "key-invalid")
    entries = (await api.get("/api/v1/audit", params={"subject": key_id})).json()["items"]
    assert [(entry["what"], entry["who"]) for entry in entries if entry["what"] == "key.revoke"] == [
        ("key.revoke", "admin")
    ]
    (entry,) = (await api.get("/api/v1/audit", params={"subject": created["key_id"]})).json()["items"]
    assert (entry["what"], entry["after"]) == ("key.create", {"name": "spare", "role": "admin"})
    assert created["key"] not in str(entry)


async def test_an_unknown_id_is_a_problem(api: httpx.AsyncClient) -> None:
    """The text of a key is no id."""
    is_problem(await api.delete(f"{PATH}/{'0' * 16}"), 404, "key-unknown")
    is_problem(await api.delete(f"{PATH}/{KEYS['viewer']}"), 422, "request-invalid")


async def test_the_last_admin_key_that_works_stays(
    api: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """Expired and revoked admin keys do not count; `force` revokes it."""
    admin = str((await records(api))["admin"]["key_id"])
    soon = (NOW + timedelta(minutes=1)).isoformat()
    await api.post(PATH, json={"name": "short", "role": "admin", "expires_at": soon})
    gone = (await api.post(PATH, json={"name": "gone", "role": "admin"})).json()["key_id"]
    assert (await api.delete(f"{PATH}/{gone}")).status_code == 200
    clock.now = NOW + timedelta(minutes=1)
    is_problem(await api.delete(f"{PATH}/{admin}"), 409, "last-admin-key")
    await registry.api_keys.revoke(admin, by="command-line", at=clock.now, force=True)
    is_problem(await api.get(PATH), 401, "key-invalid")
    assert not await registry.api_keys.ensure_first(KEYS["admin"])
    assert await registry.api_keys.find(KEYS["admin"]) is None


async def test_two_admins_cannot_revoke_each_other_at_once(registry: Registry) -> None:
    """Of two revocations at a time one is refused: an admin key is left."""
    await registry.api_keys.create("second", "admin")
    admins = [record.key for record in await registry.api_keys.page() if record.key.role == "admin"]
    assert len(admins) == 2
    outcomes = await asyncio.gather(
        *(registry.api_keys.revoke(key.key_id, by=key.name, at=NOW) for key in admins), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes].count(ContractError) == 1
    assert await registry.api_keys.any_admin(NOW)


async def test_the_last_use_is_written_at_most_once_a_minute(
    app: FastAPI, registry: Registry, clock: Clock, api: httpx.AsyncClient
) -> None:
    """Requests within a minute of the written time change nothing."""
    watch: KeyWatch = app.state.services.key_watch

    async def last_use() -> object:
        await watch.look()
        return (await records(api))["viewer"]["last_used_at"]

    assert await last_use() is None
    async with client_of(app, "viewer") as client:
        for seconds, written in [(0, "10:00:00"), (59, "10:00:00"), (60, "10:01:00"), (70, "10:01:00")]:
            clock.now = NOW + timedelta(seconds=seconds)
            await client.get("/api/v1/whoami")
            assert await last_use() == f"2026-01-15T{written}.000Z"


async def test_keys_from_before_they_had_ids_get_one(registry: Registry) -> None:
    """Such a key works before and after, and can be revoked."""
    old = {"name": "old", "role": "viewer", "device_id": None, "created_at": NOW, "revoked": False}
    await registry.api_keys.create("old", "viewer", "old-secret")
    await registry.mongo.db.api_keys.delete_one({"name": "old"})
    hashed = "4a2b6e0f" * 8
    await registry.mongo.db.api_keys.insert_many([{"_id": hashed, **old}, {"_id": hashed[::-1], **old}])
    await registry.api_keys.ensure_ids()
    ids = {record.key.key_id for record in await registry.api_keys.page() if record.key.name == "old"}
    assert len(ids) == 2
    assert all(len(key_id) == 16 and key_id not in hashed for key_id in ids)
    assert (await registry.api_keys.revoke(ids.pop(), by="x", at=NOW)).revoked
