"""Test how devices are moved and decommissioned over REST."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import Registry
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.identities.model import DeleteIdentity, EnrollIdentity, Template
from tests.integration.dashboard_api.conftest import NOW, client_of, is_problem, vector

CAM = "/api/v1/devices/cam-001"


@pytest.fixture
async def camera(api: httpx.AsyncClient) -> str:
    body = {"device_id": "cam-001", "site_id": "lobby"}
    assert (await api.post("/api/v1/devices", json=body)).status_code == 201
    return "cam-001"


def keyed(app: FastAPI, key: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)


async def listed(api: httpx.AsyncClient, **query: str) -> list[str]:
    items = (await api.get("/api/v1/devices", params=query)).json()["items"]
    return [item["device_id"] for item in items]


async def audited(registry: Registry, what: str) -> int:
    return await registry.mongo.db.audit.count_documents({"what": what})


async def report(registry: Registry, device_id: str) -> None:
    epoch = (await registry.versions.read()).epoch
    await registry.devices.record_reports(
        [
            DeviceReport.status(device_id, "online", "1", NOW, NOW),
            DeviceReport.latest(device_id, "info", {"site_id": "lobby", "spaces": {}}, NOW),
            DeviceReport.latest(device_id, "heartbeat", {"uptime_s": 1.0}, NOW),
            DeviceReport.latest(device_id, "applied", {"epoch": epoch, "version": 9}, NOW),
        ]
    )


async def test_a_decommissioned_device_is_gone(
    api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """It leaves lists and counts; a repeat changes nothing."""
    await report(registry, camera)
    for _ in range(2):
        gone = await api.delete(CAM)
        assert gone.status_code == 200
        assert gone.json()["decommissioned_at"]
    found = gone.json()
    assert (found["site_id"], found["state"], found["heartbeat"], found["info"]) == (
        None, "never-seen", None, None,
    )  # fmt: skip
    assert (await listed(api), await listed(api, decommissioned="true")) == ([], [camera])
    assert (await api.get("/api/v1/sync/status")).json()["devices"] == []
    assert (await api.get("/api/v1/sites")).json()["items"][0]["devices"] == 0
    assert await audited(registry, "device.decommissioned") == 1
    assert await registry.placements.to_clear() == {camera: "all"}


async def test_the_keys_of_a_decommissioned_device_are_revoked(
    app: FastAPI, api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """Those of others work on; a device that comes back needs a new key."""
    for name, device_id in (("first", camera), ("second", camera), ("other", "cam-002")):
        await registry.devices.register(device_id, "lobby")
        await registry.api_keys.create(name, "edge", f"key-{name}", device_id)
    for _ in range(2):
        assert (await api.delete(CAM)).status_code == 200
    await api.post("/api/v1/devices", json={"device_id": camera, "site_id": "lobby"})
    for name, status in (("first", 401), ("second", 401), ("other", 200)):
        async with keyed(app, f"key-{name}") as client:
            assert (await client.get("/api/edge/sync")).status_code == status
    listed_keys = (await api.get("/api/v1/keys")).json()["items"]
    revoked = {key["key_id"]: key["name"] for key in listed_keys if key["state"] == "revoked"}
    assert sorted(revoked.values()) == ["first", "second"]
    entries = registry.mongo.db.audit.find({"what": "key.revoke"})
    assert {entry["subject"] async for entry in entries if entry["who"] == "admin"} == set(revoked)
    assert await audited(registry, "key.revoke") == 2


async def test_late_reports_do_not_revive_a_decommissioned_device(
    api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """An admin brings it back, without confirmations."""
    await api.delete(CAM)
    await report(registry, camera)
    with pytest.raises(ContractError, match="device-decommissioned"):
        await registry.devices.register(camera, "lobby")
    found = (await api.get(CAM)).json()
    assert (found["state"], found["heartbeat"], found["applied"]) == ("never-seen", None, None)
    back = await api.post("/api/v1/devices", json={"device_id": camera, "site_id": "gate"})
    assert back.status_code == 201
    assert (back.json()["site_id"], back.json()["applied"], back.json()["decommissioned_at"]) == (
        "gate", None, None,
    )  # fmt: skip
    assert await registry.placements.to_clear() == {}


async def test_an_erasure_counts_a_decommissioned_device_as_gone(
    api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """A dead camera does not keep an erasure open for ever."""
    await registry.devices.register("cam-002", "lobby")
    await registry.identities.enroll(EnrollIdentity("EMP-1", sites=("lobby",)))
    erasure = await registry.erasures.erase("EMP-1", by="tester", now=NOW)
    assert {device.state for device in erasure.devices} == {"waiting"}
    epoch = (await registry.versions.read()).epoch
    await registry.devices.record_reports(
        [DeviceReport.latest("cam-002", "applied", {"epoch": epoch, "version": 99}, NOW)]
    )
    await api.delete(CAM)
    after = await registry.erasures.continue_erasure(erasure.erasure_id, NOW + timedelta(days=1))
    assert {device.device_id: device.state for device in after.devices} == {
        camera: "gone", "cam-002": "confirmed",
    }  # fmt: skip
    assert after.state == "complete"


async def test_a_moved_device_confirms_only_its_new_site(
    api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """What it confirms with its old settings belongs to the old gallery."""
    await api.patch(CAM, json={"metres_per_pixel": 0.01})
    await report(registry, camera)
    for _ in range(2):
        moved = await api.patch(CAM, json={"site_id": "gate"})
        assert moved.status_code == 200
    assert (moved.json()["site_id"], moved.json()["metres_per_pixel"]) == ("gate", None)
    assert [problem["code"] for problem in moved.json()["problems"]] == ["site-mismatch"]
    assert await audited(registry, "device.moved") == 1
    await report(registry, camera)
    assert (await api.get(CAM)).json()["applied"] is None
    await registry.devices.record_reports(
        [
            DeviceReport.latest(camera, "info", {"site_id": "gate", "spaces": {}}, NOW),
            DeviceReport.latest(camera, "applied", {"epoch": "0", "version": 9}, NOW),
        ]
    )
    found = (await api.get(CAM)).json()
    assert (found["applied"]["version"], found["problems"]) == (9, [])


async def leave_lobby_by_a_move(api: httpx.AsyncClient) -> None:
    assert (await api.patch(CAM, json={"site_id": "gate"})).status_code == 200


async def leave_lobby_by_a_new_registration(api: httpx.AsyncClient) -> None:
    await api.delete(CAM)
    body = {"device_id": "cam-001", "site_id": "gate"}
    assert (await api.post("/api/v1/devices", json=body)).status_code == 201


@pytest.mark.parametrize("leave", [leave_lobby_by_a_move, leave_lobby_by_a_new_registration])
@pytest.mark.parametrize("is_erased_first", [True, False])
async def test_an_erasure_waits_for_the_old_gallery_of_a_moved_device(
    app: FastAPI,
    api: httpx.AsyncClient,
    registry: Registry,
    camera: str,
    leave: Callable[[httpx.AsyncClient], Awaitable[None]],
    is_erased_first: bool,
) -> None:
    """It has the person until the snapshot of its new site, at a lower version."""
    for n, site in ((2, "gate"), (1, "lobby")):
        template = Template("face:test-8", normalise(vector(n), 8))
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (template,), sites=(site,)))
    steps = [lambda: registry.erasures.erase("EMP-1", by="tester", now=NOW), lambda: leave(api)]
    for step in steps if is_erased_first else reversed(steps):
        await step()
    (erasure,) = await registry.erasures.erasures_of(["EMP-1"])
    later = NOW + timedelta(days=1)
    waiting = await registry.erasures.continue_erasure(erasure.erasure_id, later)
    assert [(device.device_id, device.state) for device in waiting.devices] == [(camera, "waiting")]
    confirmations = (await api.get("/api/v1/identities/EMP-1/confirmations")).json()
    assert confirmations["waiting"] == [camera]
    text, _ = await registry.api_keys.issue("edge", "edge", device_id=camera, expires_at=None, by="tester")
    async with keyed(app, text) as edge:
        answer = (await edge.get("/api/edge/sync", params={"since": "0"})).json()
        done = {"epoch": answer["epoch"], "version": answer["version"]}
        assert (await edge.post("/api/edge/confirm", json=done)).status_code == 200
    assert (await registry.erasures.continue_erasure(erasure.erasure_id, later)).state == "complete"
    confirmations = (await api.get("/api/v1/identities/EMP-1/confirmations")).json()
    assert (confirmations["waiting"], confirmations["device_count"]) == ([], 0)


async def test_a_device_that_comes_back_while_connected_is_online(
    api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """Its next heartbeat shows the session, whose status ended with the registration."""
    await report(registry, camera)
    await api.delete(CAM)
    beat = DeviceReport.heartbeat_session(camera, "1", NOW, NOW)
    await registry.devices.record_reports([beat])
    assert (await api.get(CAM)).json()["state"] == "never-seen"
    await api.post("/api/v1/devices", json={"device_id": camera, "site_id": "lobby"})
    await registry.devices.record_reports([beat])
    assert (await api.get(CAM)).json()["state"] == "online"
    assert await registry.devices.online_sessions([camera])


async def test_a_polling_device_that_was_moved_gets_a_snapshot(
    app: FastAPI, api: httpx.AsyncClient, registry: Registry, camera: str
) -> None:
    """Its old version does not count at the new site."""
    for n, site in ((1, "lobby"), (2, "gate")):
        template = Template("face:test-8", normalise(vector(n), 8))
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (template,), sites=(site,)))
    text, _ = await registry.api_keys.issue("edge", "edge", device_id=camera, expires_at=None, by="tester")
    async with keyed(app, text) as edge:
        before = (await edge.get("/api/edge/sync", params={"since": "0"})).json()
        assert [change["face_id"] for change in before["changes"]] == ["EMP-1"]
        at = {"since": str(before["version"]), "epoch": before["epoch"]}
        await api.patch(CAM, json={"site_id": "gate"})
        refused = await edge.post("/api/edge/confirm", json={"epoch": at["epoch"], "version": 1})
        is_problem(refused, 409, "sync-epoch-changed")
        for query in (at, {"since": at["since"]}):
            after = (await edge.get("/api/edge/sync", params=query)).json()
            assert after["reset"]
            assert [change["face_id"] for change in after["changes"]] == ["EMP-2"]
        await registry.identities.apply([DeleteIdentity("EMP-2")])
        at = {"since": str(after["version"]), "epoch": after["epoch"]}
        last = (await edge.get("/api/edge/sync", params=at)).json()
        assert (last["reset"], last["deleted"]) == (False, ["EMP-2"])
        done = {"epoch": last["epoch"], "version": last["version"]}
        assert (await edge.post("/api/edge/confirm", json=done)).status_code == 200
    assert (await api.get("/api/v1/sync/status")).json()["up_to_date"] == 1


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
async def test_an_unknown_device_is_a_404(api: httpx.AsyncClient, method: str) -> None:
    """The problem has the code of every route about devices."""
    body = {"site_id": "gate"} if method == "PATCH" else None
    answer = await api.request(method, "/api/v1/devices/cam-404", json=body)
    is_problem(answer, 404, "device-unknown")


@pytest.mark.parametrize("body", [{"site_id": "typo"}, {"metres_per_pixel": 0.01}])
async def test_a_refused_change_leaves_nothing(
    api: httpx.AsyncClient, registry: Registry, camera: str, body: dict[str, object]
) -> None:
    """A decommissioned device gets no calibration, and no site is created."""
    await api.delete(CAM)
    is_problem(await api.patch(CAM, json=body), 404, "device-unknown")
    with pytest.raises(ContractError, match="device-decommissioned"):
        await registry.devices.register(camera, "typo")
    assert [site.site_id for site in await registry.sites.all()] == ["lobby"]
    assert await registry.devices.calibrations() == {}


@pytest.mark.parametrize("body", [{}, {"site_id": None}, {"site_id": "No Site"}, {"site": "gate"}])
async def test_a_change_names_a_valid_site(api: httpx.AsyncClient, camera: str, body: object) -> None:
    """An empty change is refused as an invalid one is."""
    is_problem(await api.patch(CAM, json=body), 422, "request-invalid")


@pytest.mark.parametrize("role", ["operator", "viewer"])
async def test_only_an_admin_moves_and_decommissions(
    app: FastAPI, api: httpx.AsyncClient, camera: str, role: str
) -> None:
    """Other roles are refused and change nothing."""
    async with client_of(app, role) as client:
        assert (await client.delete(CAM)).status_code == 403
        assert (await client.patch(CAM, json={"site_id": "gate"})).status_code == 403
    assert await listed(api) == [camera]
