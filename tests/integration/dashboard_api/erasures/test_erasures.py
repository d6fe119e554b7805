"""Erase with a receipt, and export, over REST."""

import base64
import json
import tracemalloc
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.removal import SETTLE_TIME
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey
from tests.integration.dashboard_api.conftest import FACE, JPEG, Clock, client_of, event, is_problem, vector

PEOPLE = "/api/v1/identities"
ERASURES = "/api/v1/erasures"


@pytest.fixture
def clock() -> Clock:
    """Return the real time, which the registry's writers use."""
    return Clock(to_milliseconds(utc_now()))


async def enroll(api: httpx.AsyncClient, user_id: str = "EMP-12345", n: int = 1, **more: Any) -> None:
    templates = [{"space": FACE, "embedding": vector(n)}]
    answer = await api.post(PEOPLE, json={"user_id": user_id, "templates": templates, **more})
    assert answer.status_code == 201


async def test_an_erasure_lists_its_steps_and_the_devices_that_must_confirm(
    api: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """The receipt fills as devices confirm, and ends complete."""
    for n in (1, 2):
        await registry.devices.register(f"cam-00{n}", "lobby")
    await enroll(api, display_name="Sample Person")
    await registry.events.record([event(1, image=base64.b64encode(JPEG).decode())])
    started = await api.post(f"{PEOPLE}/EMP-12345/erase")
    assert started.status_code == 200
    body = started.json()
    done = {name for name, step in body["steps"].items() if step["count"] == 1}
    assert done == {"people", "templates", "events", "images", "audit"}
    assert body["steps"].keys() - done == {"registrations", "dead_letters", "detected_persons"}
    assert (body["user_id"], body["state"], body["summary"]) == ("EMP-12345", "open", "0 of 2 devices")
    assert (body["requested_by"], body["version"]) == ("admin", 2)

    epoch = (await registry.versions.read()).epoch
    for n in (1, 2):
        applied = {"epoch": epoch, "version": body["version"]}
        at = clock.now + timedelta(seconds=n)
        await registry.devices.record_reports([DeviceReport.latest(f"cam-00{n}", "applied", applied, at)])
    receipt = await api.get(f"{ERASURES}/{body['erasure_id']}")
    assert "EMP-12345" not in receipt.text
    assert receipt.json()["summary"] == "2 of 2 devices"
    assert [device["state"] for device in receipt.json()["devices"]] == ["confirmed", "confirmed"]
    assert len({device["confirmed_at"] for device in receipt.json()["devices"]}) == 2

    await registry.erasures.continue_open_erasures(clock.now + SETTLE_TIME)
    assert (await api.get(f"{ERASURES}/{body['erasure_id']}")).json()["state"] == "complete"
    shown = (await api.get(f"{PEOPLE}/EMP-12345")).json()
    assert (shown["deleted"], shown["display_name"], shown["template_list"]) == (True, None, [])
    events = (await api.get("/api/v1/events")).json()["items"]
    assert [found_item["user_id"] for found_item in events] == [body["pseudonym"]]


async def test_the_same_request_again_shows_the_same_erasure(api: httpx.AsyncClient) -> None:
    """A client that lost the answer can repeat the request."""
    await enroll(api)
    first = (await api.post(f"{PEOPLE}/EMP-12345/erase")).json()
    repeated = (await api.post(f"{PEOPLE}/EMP-12345/erase")).json()
    assert first["erasure_id"] == repeated["erasure_id"]
    assert len((await api.get(ERASURES)).json()["items"]) == 1


async def test_only_an_admin_erases_and_merged_identities_go_together(
    app: FastAPI, api: httpx.AsyncClient, registry: Registry
) -> None:
    """An operator deletes; the source of a merge is erased with its target."""
    await enroll(api)
    await enroll(api, "EMP-2", 2)
    for role in ("operator", "viewer", "source", "edge"):
        async with client_of(app, role) as client:
            is_problem(await client.post(f"{PEOPLE}/EMP-12345/erase"), 403, "role-insufficient")
    await registry.identity_merges.merge("EMP-2", "EMP-12345")
    document = is_problem(await api.post(f"{PEOPLE}/EMP-2/erase"), 409, "person-merged")
    assert "erase EMP-12345" in document["detail"]
    is_problem(await api.post(f"{PEOPLE}/UNKNOWN/erase"), 404, "person-unknown")
    is_problem(await api.get(f"{ERASURES}/{'0' * 24}"), 404, "erasure-unknown")
    is_problem(await api.get(f"{ERASURES}/none"), 422, "request-invalid")


async def test_pages_of_erasures_show_each_once_without_user_ids(
    app: FastAPI, api: httpx.AsyncClient, clock: Clock
) -> None:
    """Newest first, by cursor, for every role that may read."""
    for n in range(5):
        await enroll(api, f"EMP-{n}", n)
        clock.now += timedelta(seconds=1)
        await api.post(f"{PEOPLE}/EMP-{n}/erase")
    times, cursor = [], None
    async with client_of(app, "viewer") as viewer:
        while True:
            page = await viewer.get(ERASURES, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
            assert "EMP-" not in page.text
            times += [item["requested_at"] for item in page.json()["items"]]
            cursor = page.json()["next_cursor"]
            if cursor is None:
                break
    assert len(times) == 5
    assert times == sorted(times, reverse=True)


async def test_an_export_has_all_data_of_an_identity(
    app: FastAPI, api: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """Merged identities, vectors, events, images, visits and audit; of no other."""
    await enroll(api, display_name="Sample Person Å", consent={"face": True})
    enrollment = EnrollIdentity("EMP-1", external=ExternalKey("alfred", "person-4711"))
    await registry.identities.enroll(enrollment)
    await registry.identity_merges.merge("EMP-1", "EMP-12345")
    await enroll(api, "EMP-3", 3, display_name="Other Name")
    picture = base64.b64encode(JPEG).decode()
    visit = {"event_id": "EV3-1736942400000-00000b", "event_type": "visit"}
    await registry.events.record(
        [event(1, image=picture), event(2, user_id="EMP-1"), event(3, user_id="EMP-3"), event(0, **visit)]
    )
    async with client_of(app, "operator") as operator:
        answer = await operator.get(f"{PEOPLE}/EMP-12345/export")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="EMP-12345.json"'
    assert "Other Name" not in answer.text
    kept = answer.json()
    assert (kept["person"]["display_name"], kept["person"]["consent"]) == ("Sample Person Å", {"face": True})
    assert kept["person"]["external"] == ["alfred/person-4711"]
    assert [(found_item["user_id"], found_item["merge"]["into"]) for found_item in kept["merged"]] == [
        ("EMP-1", "EMP-12345")
    ]
    (template,) = kept["templates"]
    stored = (await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]
    assert base64.b64decode(template["vector"]) == stored[0].vector
    assert sorted(found_item["user_id"] for found_item in kept["events"]) == [
        "EMP-1",
        "EMP-12345",
        "EMP-12345",
    ]
    assert [found_item["image"] for found_item in kept["events"] if "image" in found_item] == [picture]
    assert [(found_item["site_id"], found_item["visits"]) for found_item in kept["visits"]] == [("lobby", 1)]
    assert {entry["what"] for entry in kept["audit"]} >= {
        "person.enrolled",
        "person.merged",
        "person.exported",
    }
    (exported,) = [entry for entry in kept["audit"] if entry["what"] == "person.exported"]
    assert exported["who"] == "operator"


async def test_the_export_of_an_erased_identity_has_the_erasure_only(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """It is the proof that nothing else is left."""
    await enroll(api, display_name="Sample Person")
    await registry.events.record([event(1)])
    started = (await api.post(f"{PEOPLE}/EMP-12345/erase")).json()
    kept = (await api.get(f"{PEOPLE}/EMP-12345/export")).json()
    assert (kept["templates"], kept["events"], kept["person"]["display_name"]) == ([], [], None)
    assert [found_item["erasure_id"] for found_item in kept["erasures"]] == [started["erasure_id"]]


async def test_an_export_needs_a_right_and_an_identity(app: FastAPI, api: httpx.AsyncClient) -> None:
    """Vectors leave for admins and operators only."""
    await enroll(api)
    for role in ("viewer", "source", "edge"):
        async with client_of(app, role) as client:
            is_problem(await client.get(f"{PEOPLE}/EMP-12345/export"), 403, "role-insufficient")
    is_problem(await api.get(f"{PEOPLE}/UNKNOWN/export"), 404, "person-unknown")


async def test_an_export_of_many_events_needs_little_memory(registry: Registry) -> None:
    """20,000 events, about 6 MB of JSON, are written piece by piece."""
    await registry.identities.enroll(EnrollIdentity("EMP-12345"))
    for start in range(0, 20_000, 2000):
        await registry.events.record([event(n) for n in range(start, start + 2000)])
    pieces = await registry.personal_data_export.export_identity(
        "EMP-12345", by="admin", now=to_milliseconds(utc_now())
    )
    size = 0
    first = b""
    tracemalloc.start()
    async for piece in pieces:
        first = first or piece
        size += len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert json.loads(first + b"}")["user_id"] == "EMP-12345"
    assert size > 5_000_000
    assert peak < 2_000_000
