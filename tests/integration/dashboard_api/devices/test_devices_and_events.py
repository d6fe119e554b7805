"""Devices, sites, the sync status, events as a list, and health."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import Registry
from broker_bridge.registry.devices.reports import DeviceReport
from tests.integration.dashboard_api.conftest import NOW, Clock, client_of, event, is_problem, vector

JPEG_TEXT = "/9j/4AAQSkZJRg=="


async def test_a_device_is_registered_once_and_stays_at_its_site(api: httpx.AsyncClient) -> None:
    """The answers are 201, then 200 for a repeat, then 409 for another site."""
    body = {"device_id": "cam-001", "site_id": "lobby"}
    assert (await api.post("/api/v1/devices", json=body)).status_code == 201
    assert (await api.post("/api/v1/devices", json=body)).status_code == 200
    moved = await api.post("/api/v1/devices", json={**body, "site_id": "gate"})
    assert "lobby" in is_problem(moved, 409, "site-mismatch")["detail"]
    assert (await api.get("/api/v1/sites")).json()["items"][0] == {
        "site_id": "lobby", "enrollment_policy": "closed", "registers_employees": False, "devices": 1,
        "head_version": 0,
    }  # fmt: skip


async def test_a_device_is_silent_after_three_missed_heartbeats(
    api: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """The status does not matter; a device without any message is silent too."""
    await registry.devices.register("cam-001", "lobby")
    unseen = (await api.get("/api/v1/devices/cam-001")).json()
    await registry.devices.record_reports(
        [
            DeviceReport.status("cam-001", "online", "1", NOW, NOW),
            DeviceReport.latest("cam-001", "heartbeat", {"uptime_s": 1.5, "at": NOW}, NOW),
        ]
    )
    clock.now = NOW + timedelta(seconds=90)
    still_there = (await api.get("/api/v1/devices/cam-001")).json()
    clock.now = NOW + timedelta(seconds=90.1)
    silent = (await api.get("/api/v1/devices/cam-001")).json()
    assert (unseen["state"], unseen["silent"], unseen["last_seen"]) == ("never-seen", True, None)
    assert (still_there["state"], still_there["silent"]) == ("online", False)
    assert still_there["heartbeat"]["uptime_s"] == 1.5
    assert (silent["state"], silent["silent"]) == ("online", True)
    is_problem(await api.get("/api/v1/devices/cam-404"), 404, "device-unknown")


async def test_a_device_with_another_model_has_a_problem(api: httpx.AsyncClient, registry: Registry) -> None:
    """The registry compares models until the device reports the problem itself."""
    await registry.devices.register("cam-001", "lobby")
    await registry.spaces.ensure(EmbeddingSpace("face:test-8", 8, "a" * 64))
    spaces = {"face:test-8": {"dimension": 8, "model_sha256": "b" * 64}}
    canary_problem = {"code": "canary-failed", "detail": "it computes something else"}

    async def problems(heartbeat: dict[str, Any]) -> list[dict[str, str]]:
        await registry.devices.record_reports([DeviceReport.latest("cam-001", "heartbeat", heartbeat, NOW)])
        shown: list[dict[str, str]] = (await api.get("/api/v1/devices")).json()["items"][0]["problems"]
        return shown

    assert await problems({}) == []
    await registry.devices.record_reports([DeviceReport.latest("cam-001", "info", {"spaces": spaces}, NOW)])
    by_registry = await problems({"problems": [canary_problem]})
    assert [item["code"] for item in by_registry] == ["canary-failed", "model-differs"]
    assert "face:test-8" in by_registry[1]["detail"]
    own = {"code": "model-differs", "detail": "in the device's own words"}
    assert await problems({"problems": [own]}) == [own]


async def test_an_unregistered_device_is_shown_without_a_site(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """Registration gives it a site."""
    await registry.devices.record_contact(["cam-009"])
    await registry.devices.record_reports([DeviceReport.latest("cam-009", "info", {"software": "1.0"}, NOW)])
    unregistered = (await api.get("/api/v1/devices/cam-009")).json()
    assert (unregistered["site_id"], unregistered["info"]["software"]) == (None, "1.0")
    added = await api.post("/api/v1/devices", json={"device_id": "cam-009", "site_id": "lobby"})
    assert (added.status_code, added.json()["site_id"]) == (201, "lobby")


async def test_devices_are_paged_and_filtered_by_site(api: httpx.AsyncClient, registry: Registry) -> None:
    """Three devices make two pages; a site lists its own."""
    for device_id, site in [("cam-001", "lobby"), ("cam-002", "gate"), ("cam-003", "lobby")]:
        await registry.devices.register(device_id, site)
    first = (await api.get("/api/v1/devices", params={"limit": 2})).json()
    second = (await api.get("/api/v1/devices", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    lobby = (await api.get("/api/v1/devices", params={"site_id": "lobby"})).json()
    assert [item["device_id"] for item in first["items"] + second["items"]] == [
        "cam-001",
        "cam-002",
        "cam-003",
    ]
    assert second["next_cursor"] is None
    assert [item["device_id"] for item in lobby["items"]] == ["cam-001", "cam-003"]


async def test_sync_status_measures_each_device_by_its_own_site(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """A change at another site does not matter; another epoch does not count."""
    for device_id, site in [("cam-001", "lobby"), ("cam-002", "gate"), ("cam-003", "gate")]:
        await registry.devices.register(device_id, site)
    template = [{"space": "face:test-8", "embedding": vector(1)}]
    await api.post("/api/v1/identities", json={"user_id": "A", "sites": ["lobby"], "templates": template})
    await api.post("/api/v1/identities", json={"user_id": "B", "sites": ["gate"], "templates": template})
    epoch = (await registry.versions.read()).epoch
    document = {"cam-001": (epoch, 1), "cam-002": (epoch, 1), "cam-003": ("abc", 2)}
    await registry.devices.record_reports(
        [
            DeviceReport.latest(device, "applied", {"epoch": at, "version": version}, NOW)
            for device, (at, version) in document.items()
        ]
    )
    status = (await api.get("/api/v1/sync/status")).json()
    assert (status["epoch"], status["version"], status["horizon"]) == (epoch, 2, 0)
    assert {item["device_id"]: item["up_to_date"] for item in status["devices"]} == {
        "cam-001": True, "cam-002": False, "cam-003": False
    }  # fmt: skip
    assert (status["up_to_date"], status["behind"]) == (1, 2)


async def stored(registry: Registry, count: int = 6) -> None:
    await registry.events.record(
        [
            event(
                n,
                device=f"cam-00{n % 2}",
                user_id=f"EMP-{n % 3}",
                timestamp=f"2026-01-15T10:00:0{n}.000Z",
                # Two and two at the same instant: the cursor must distinguish them.
                received_at=NOW + timedelta(seconds=n // 2),
            )
            for n in range(count)
        ]
    )


async def ids(api: httpx.AsyncClient, **params: Any) -> list[int]:
    answer = await api.get("/api/v1/events", params=params)
    return [int(item["event_id"][-6:], 16) for item in answer.json()["items"]]


async def test_events_are_listed_newest_first_and_filtered(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """Filters are identity, device, type and time of recognition."""
    await stored(registry)
    unknown = {"event_id": "EV4-1736942400000-000009", "user_id": None, "event_type": "unknown"}
    await registry.events.record([event(9, **unknown, timestamp="2026-01-15T09:00:00.000Z")])
    assert await ids(api) == [5, 4, 3, 2, 9, 1, 0]
    assert await ids(api, user_id="EMP-0") == [3, 0]
    assert await ids(api, device_id="cam-001") == [5, 3, 9, 1]
    assert await ids(api, event_type="unknown") == [9]
    assert await ids(api, since="2026-01-15T10:00:04Z") == [5, 4]
    assert await ids(api, until="2026-01-15T10:00:01Z") == [9, 0]


async def test_pages_of_events_neither_skip_nor_repeat(api: httpx.AsyncClient, registry: Registry) -> None:
    """Pages may end inside one instant, and new events may arrive."""
    await stored(registry)
    listed: list[int] = []
    params: dict[str, Any] = {"limit": 1}
    while True:
        page = (await api.get("/api/v1/events", params=params)).json()
        listed += [int(item["event_id"][-6:], 16) for item in page["items"]]
        await registry.events.record([event(100 + len(listed), received_at=NOW + timedelta(hours=1))])
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert listed == [5, 4, 3, 2, 1, 0]


async def test_an_event_is_shown_as_on_the_wire_with_its_image_apart(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """It has the fields of seed 003; the image has its own path and type."""
    await registry.events.record([event(1, image=JPEG_TEXT), event(2)])
    path = "/api/v1/events/cam-001/EV1-1736942400000-000001"
    shown = (await api.get(path)).json()
    image = await api.get(f"{path}/image")
    assert (shown["event_type"], shown["user_id"], shown["has_image"]) == ("facial_id", "EMP-12345", True)
    assert shown["timestamp"] == "2026-01-15T10:00:00.000Z"
    assert "image" not in shown
    assert image.headers["content-type"] == "image/jpeg"
    assert image.content.startswith(b"\xff\xd8")
    is_problem(await api.get(path.replace("000001", "000002") + "/image"), 404, "not-found")
    is_problem(await api.get(path.replace("000001", "000003")), 404, "not-found")


@pytest.mark.parametrize(("age_seconds", "bridge"), [(1, True), (16, False)])
async def test_readiness_reports_a_running_bridge(
    app: Any, registry: Registry, age_seconds: int, bridge: bool
) -> None:
    """No key is needed, and the answer has booleans only."""
    await registry.mongo.db.meta.insert_one(
        {"_id": "bridge:host-7", "at": NOW - timedelta(seconds=age_seconds)}
    )
    async with client_of(app, None) as client:
        ready = await client.get("/readyz")
        assert (await client.get("/healthz")).json() == {"alive": True}
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "mongo": True, "bridge": bridge}


async def test_an_api_that_cannot_work_any_more_is_not_alive(app: Any) -> None:
    """Its MongoDB client is broken, whatever state MongoDB is in."""
    app.state.services.probe.works = False
    async with client_of(app, None) as client:
        alive = await client.get("/healthz")
    assert alive.status_code == 503
    assert alive.headers["content-type"] == "application/problem+json"
    assert alive.json()["code"] == "not-alive"
