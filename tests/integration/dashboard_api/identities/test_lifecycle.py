"""Restore, merge and consent over REST, with their audit entries."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from tests.integration.dashboard_api.conftest import FACE, GAIT, client_of, is_problem, vector

PATH = "/api/v1/identities"


async def enroll(api: httpx.AsyncClient, user_id: str, n: int, **more: Any) -> None:
    templates = [{"space": FACE, "embedding": vector(n)}, {"space": GAIT, "embedding": vector(n, 4)}]
    answer = await api.post(PATH, json={"user_id": user_id, "templates": templates, **more})
    assert answer.status_code == 201


async def audited(api: httpx.AsyncClient, user_id: str) -> list[str]:
    items = (await api.get("/api/v1/audit", params={"subject": user_id})).json()["items"]
    return [item["what"] for item in items]


async def test_a_deleted_identity_is_restored(api: httpx.AsyncClient) -> None:
    """It is as before; an identity that is not deleted cannot be restored."""
    await enroll(api, "EMP-1", 1, display_name="One", flag="red")
    await api.delete(f"{PATH}/EMP-1")
    restored = (await api.post(f"{PATH}/EMP-1/restore")).json()
    assert (restored["deleted"], restored["display_name"], restored["flag"]) == (False, "One", "red")
    assert len(restored["templates"]) == 2
    is_problem(await api.post(f"{PATH}/EMP-1/restore"), 404, "person-unknown")
    assert await audited(api, "EMP-1") == ["person.restored", "person.deleted", "person.enrolled"]


async def test_two_identities_are_merged_and_unmerged(api: httpx.AsyncClient) -> None:
    """The answer shows the target; the source names it until the unmerge."""
    await enroll(api, "EMP-1", 1)
    await enroll(api, "EMP-2", 2)
    target = (await api.post(f"{PATH}/EMP-2/merge", json={"into": "EMP-1"})).json()
    assert (target["user_id"], target["templates"][0]["count"]) == ("EMP-1", 2)
    assert (await api.get(f"{PATH}/EMP-1")).json()["merged"] == ["EMP-2"]
    source = (await api.get(f"{PATH}/EMP-2")).json()
    assert (source["deleted"], source["merged_into"], source["template_list"]) == (True, "EMP-1", [])
    is_problem(await api.post(f"{PATH}/EMP-2/restore"), 409, "person-merged")
    is_problem(await api.post(f"{PATH}/EMP-1/merge", json={"into": "EMP-1"}), 409, "merge-impossible")
    revived = (await api.post(f"{PATH}/EMP-2/unmerge")).json()
    assert (revived["user_id"], revived["deleted"], revived["merged_into"]) == ("EMP-2", False, None)
    is_problem(await api.post(f"{PATH}/EMP-2/unmerge"), 409, "merge-impossible")
    assert await audited(api, "EMP-2") == ["person.unmerged", "person.merged", "person.enrolled"]


async def test_consent_is_given_and_withdrawn_per_modality(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """Without consent for gait, face templates are still sent to cameras."""
    await enroll(api, "EMP-1", 1, consent={"face": True})
    changed = (await api.patch(f"{PATH}/EMP-1", json={"consent": {"gait": False}})).json()
    assert changed["consent"] == {"face": True, "gait": False}
    received = await registry.deltas.site_deltas("lobby", 0, [FACE, GAIT], 10, 10**6, snapshot=True)
    assert [entry.space for entry in received.deltas[0].templates] == [FACE]
    is_problem(await api.patch(f"{PATH}/EMP-1", json={"consent": {"iris": True}}), 422, "request-invalid")


@pytest.mark.parametrize("act", ["restore", "unmerge"])
async def test_only_operators_restore_and_unmerge(app: FastAPI, act: str) -> None:
    """A viewer or a source may do neither."""
    for role in ("viewer", "source", "edge"):
        async with client_of(app, role) as client:
            is_problem(await client.post(f"{PATH}/EMP-1/{act}"), 403, "role-insufficient")


async def test_the_audit_has_the_key_that_registered_a_device(api: httpx.AsyncClient) -> None:
    """A repeated registration leaves no entry."""
    for _ in range(2):
        await api.post("/api/v1/devices", json={"device_id": "cam-7", "site_id": "lobby"})
    items = (await api.get("/api/v1/audit", params={"subject": "cam-7"})).json()["items"]
    assert [(item["what"], item["who"], item["after"]["site_id"]) for item in items] == [
        ("device.registered", "admin", "lobby")
    ]
