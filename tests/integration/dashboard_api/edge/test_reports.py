"""Polling devices confirm versions, register visitors and report visits."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import Event, Rejection
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.events.admission import EventAdmission
from broker_bridge.registry.events.event_filter import EventFilter
from broker_bridge.registry.events.model import IncomingEvent, RecordedEvents
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from tests.integration.dashboard_api.conftest import FACE, device_client, is_problem, vector


def face(n: int) -> Template:
    return Template(FACE, normalise(vector(n), 8), 0.9)


def axis(n: int, tilt: float = 0.0) -> list[float]:
    """Return a unit vector of the standard basis, turned towards the next by `tilt`."""
    numbers = [0.0] * 8
    numbers[n], numbers[(n + 1) % 8] = 1.0, tilt
    return numbers


# Confirmation


async def test_a_confirmation_counts_like_one_over_mqtt(
    cam_a: httpx.AsyncClient, api: httpx.AsyncClient, registry: Registry
) -> None:
    """A device confirms a deletion by its version."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("lobby",)))
    await registry.identities.delete("EMP-1")
    document = (await cam_a.get("/api/edge/sync")).json()
    for version, summary in ((1, "0 of 1 devices"), (document["version"], "1 of 1 devices")):
        answer = await cam_a.post("/api/edge/confirm", json={"epoch": document["epoch"], "version": version})
        assert answer.json() == {
            "success": True, "device_id": "cam-a", "epoch": document["epoch"], "version": version
        }  # fmt: skip
        shown = (await api.get("/api/v1/identities/EMP-1/confirmations")).json()
        assert shown["summary"] == summary


async def test_nothing_is_confirmed_that_has_not_happened(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """A version ahead or of another history is rejected."""
    epoch = (await registry.versions.read()).epoch
    path = "/api/edge/confirm"
    is_problem(await cam_a.post(path, json={"epoch": epoch, "version": 1}), 409, "version-ahead")
    is_problem(await cam_a.post(path, json={"epoch": "ff", "version": 0}), 409, "sync-epoch-changed")
    for wrong in (
        {"epoch": epoch, "version": -1},
        {"epoch": epoch, "version": 2**63},
        {"epoch": {"$ne": ""}, "version": 0},
        {"epoch": epoch, "version": 0, "device_id": "cam-b"},
        {"epoch": epoch, "version": 0, "spaces": {"$where": {"count": 1, "digest": "0" * 16}}},
        {"version": 0},
    ):
        is_problem(await cam_a.post(path, json=wrong), 422, "request-invalid")
    device = await registry.devices.get("cam-a")
    assert device is not None
    assert device.applied is None


# New visitors


@pytest.fixture
async def open_lobby(registry: Registry, cam_a: httpx.AsyncClient) -> httpx.AsyncClient:
    """Yield `cam-a` at a site where visitors may be registered."""
    await registry.sites.set_policy("lobby", "visitors", by="tester", at=datetime.now(timezone.utc))
    return cam_a


async def upload(client: httpx.AsyncClient, request_id: str, **body: Any) -> httpx.Response:
    return await client.post("/api/edge/visitors", json={"request_id": request_id, **body})


async def test_a_new_visitor_gets_an_id(open_lobby: httpx.AsyncClient, registry: Registry) -> None:
    """The answer is a 201; the same request again gets the same answer."""
    answers = [
        await upload(open_lobby, "r-1", embedding=axis(1), quality=0.8, name="A guest") for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    document = answers[0].json()
    assert answers[1].json() == document
    assert document == {
        "success": True,
        "result": "created",
        "user_id": document["face_id"],
        "face_id": document["face_id"],
        "similarity": None,
    }
    identity = await registry.identities.get(document["face_id"])
    assert (identity.kind, identity.sites, identity.display_name) == ("visitor", ("lobby",), "A guest")
    assert (await registry.versions.read()).version == 1


async def test_a_known_face_is_recorded_as_a_visit(open_lobby: httpx.AsyncClient, registry: Registry) -> None:
    """The first device creates the identity; the visit names the reporting device."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (Template(FACE, normalise(axis(1), 8)),)))
    encoded = base64.b64encode(normalise(axis(1, 0.1), 8)).decode()
    answer = await upload(open_lobby, "r-1", vector=encoded, space=FACE)
    assert (answer.status_code, answer.json()["result"], answer.json()["face_id"]) == (200, "exists", "EMP-1")
    assert answer.json()["similarity"] == pytest.approx(0.995, abs=1e-3)
    (visit,) = await registry.events.page(EventFilter(event_type="visit"))
    assert (visit.device_id, visit.user_id, visit.site_id) == ("cam-a", "EMP-1", "lobby")


async def test_two_devices_that_upload_the_same_face_at_once_get_one_id(
    open_lobby: httpx.AsyncClient, app: FastAPI, registry: Registry
) -> None:
    """Of five faces from both devices, each is created once."""
    async with await device_client(app, registry, "cam-a2", "lobby") as second:
        for n in range(5):
            answers = await asyncio.gather(
                *(upload(client, f"r-{n}", embedding=axis(n)) for client in (open_lobby, second))
            )
            assert sorted(answer.status_code for answer in answers) == [200, 201]
            assert len({answer.json()["face_id"] for answer in answers}) == 1
    assert len(await registry.events.page(EventFilter(event_type="visit"))) == 5


async def test_a_rejected_registration_is_a_problem_with_its_code(
    open_lobby: httpx.AsyncClient, cam_b: httpx.AsyncClient, registry: Registry
) -> None:
    """Look-alikes, a closed site, invalid vectors and unknown fields are rejected."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (Template(FACE, normalise(axis(1), 8)),)))
    alike = is_problem(await upload(open_lobby, "r-1", embedding=axis(1, 1.3)), 409, "face-ambiguous")
    assert alike["similarity"] == pytest.approx(0.61, abs=0.01)
    is_problem(await upload(cam_b, "r-2", embedding=axis(3)), 409, "enrollment-closed")
    for body, code in (
        ({"embedding": [0.0] * 8}, "vector-invalid"),
        ({"embedding": axis(1)[:7]}, "vector-invalid"),
        ({"vector": "not base64!"}, "vector-invalid"),
        ({}, "vector-invalid"),
        ({"embedding": axis(1), "space": "face:other"}, "space-unknown"),
        ({"embedding": axis(1), "space": "$where"}, "request-invalid"),
        ({"embedding": {"$gt": ""}}, "request-invalid"),
        ({"embedding": axis(1), "image": "x"}, "request-invalid"),
        ({"embedding": axis(1), "device_id": "cam-b"}, "request-invalid"),
        ({"embedding": axis(1), "name": "x" * 257}, "request-invalid"),
        ({"embedding": axis(1), "quality": 2.0}, "request-invalid"),
    ):
        is_problem(await upload(open_lobby, "r-9", **body), 422, code)
    is_problem(await upload(open_lobby, "a/b", embedding=axis(1)), 422, "request-invalid")
    assert (await registry.versions.read()).version == 1


# Visits


LIVE = {"score": 1, "method": "depth"}
WRONG_LIVENESS = (
    {**LIVE, "score": 1.1},
    {**LIVE, "score": "0.9"},
    {**LIVE, "score": True},
    {**LIVE, "method": ""},
    {"score": 0.9},
    0.9,
)


async def report(client: httpx.AsyncClient, *visits: Any) -> dict[str, Any]:
    answer = await client.post("/api/edge/visits", json={"visits": list(visits)})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def ago(seconds: float) -> str:
    return format_time(datetime.now(timezone.utc) - timedelta(seconds=seconds))


async def test_reported_visits_are_recorded_once(
    cam_a: httpx.AsyncClient, api: httpx.AsyncClient, registry: Registry
) -> None:
    """The event id is the device's, or follows from the report."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("lobby",)))
    visits = [
        {"event_id": "EV3-1736942400000-a1b2c3", "face_id": "EMP-1", "timestamp": ago(60), "confidence": 0.9},
        {"face_id": "EMP-1", "timestamp": ago(30), "liveness": LIVE},
    ]
    first, repeated = [await report(cam_a, *visits) for _ in range(2)]
    assert (first["success"], first["recorded"], repeated["recorded"]) == (True, 2, 0)
    assert (first["stored"], len(first["stored"])) == (repeated["stored"], 2)
    events = (await api.get("/api/v1/events", params={"user_id": "EMP-1"})).json()["items"]
    assert {(item["event_type"], item["device_id"], item["site_id"]) for item in events} == {
        ("visit", "cam-a", "lobby")
    }
    assert {item["timestamp"] for item in events} == {item["timestamp"] for item in visits}
    # Newest first; the visit without a liveness has none.
    assert [item["metadata"] for item in events] == [{"liveness": LIVE}, {}]


async def test_each_visit_is_decided_by_itself(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """An invalid visit is reported by index; the others are recorded."""
    identities = registry.identities
    await identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in (1, 2)])
    before = ago(1)
    await identities.delete("EMP-2")
    good = {"face_id": "EMP-1", "timestamp": ago(10)}
    cases: list[tuple[Any, str | None]] = [
        (good, None),
        ({"face_id": "EMP-404", "timestamp": ago(10)}, "person-unknown"),
        ({"face_id": "EMP-2", "timestamp": before}, None),
        ({"face_id": "EMP-2", "timestamp": ago(-60)}, "person-unknown"),
        ({"face_id": "EMP-1", "timestamp": "yesterday"}, "event-invalid"),
        ({"face_id": "EMP-1", "timestamp": "2026-01-15T10:00:00"}, "event-invalid"),
        ({"face_id": "EMP-1", "timestamp": "1999-01-01T00:00:00Z"}, "event-time-implausible"),
        ({"face_id": "EMP-1", "timestamp": "1969-12-31T23:59:59Z"}, "event-invalid"),
        ({"face_id": "EMP-1", "timestamp": "0001-01-01T00:00:00Z"}, "event-invalid"),
        ({"face_id": "EMP-1", "timestamp": "9999-12-31T23:59:59Z"}, "event-time-implausible"),
        ({"face_id": {"$ne": ""}, "timestamp": ago(10)}, "event-invalid"),
        ({"face_id": "a/b", "timestamp": ago(10)}, "event-invalid"),
        ({**good, "event_id": "EV1-1736942400000-a1b2c3"}, "event-invalid"),
        ({**good, "confidence": 1.5}, "event-invalid"),
        ({**good, "device_id": "cam-b"}, "event-invalid"),
        *(({**good, "liveness": wrong}, "event-invalid") for wrong in WRONG_LIVENESS),
    ]
    document = await report(cam_a, *(visit for visit, _ in cases))
    assert {item["index"]: item["code"] for item in document["errors"]} == {
        position: code for position, (_, code) in enumerate(cases) if code
    }
    assert (document["success"], document["recorded"]) == (True, 2)


async def test_the_configured_age_of_events_holds_for_reported_visits(
    registry: Registry, api_settings: ApiSettings
) -> None:
    """The bridge's `event_max_age_days` decides over HTTP as it does over MQTT."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    strict = replace(registry, event_admission=EventAdmission(timedelta(days=1)))
    old, new = ({"face_id": "EMP-1", "timestamp": ago(seconds)} for seconds in (2 * 86_400, 3600))
    async with await device_client(create_app(strict, api_settings), strict, "cam-a", "lobby") as client:
        answer = await report(client, old, new)
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [(0, "event-time-implausible")]
    assert answer["recorded"] == 1


async def test_a_visit_that_the_store_rejects_is_an_error_of_the_answer(
    cam_a: httpx.AsyncClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receipt over MQTT has such an error too; each visit is stored or an error."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))

    async def reject(batch: Sequence[IncomingEvent]) -> RecordedEvents:
        rejected = {
            place: Rejection(event_id=item.event.event_id, code="event-invalid", detail="not BSON")
            for place, item in enumerate(batch)
        }
        return RecordedEvents(frozenset(), rejected)

    monkeypatch.setattr(registry.events, "record", reject)
    answer = await report(cam_a, {"face_id": "EMP-1", "timestamp": ago(10)})
    assert answer["errors"] == [{"index": 0, "code": "event-invalid", "detail": "not BSON"}]
    assert (answer["recorded"], answer["stored"]) == (0, [])


async def test_an_invalid_report_is_rejected(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """It is empty, too long, or of another shape."""
    shapeless: list[Any] = [[], {}, None, "x", [7], [[]], [{"face_id": "EMP-1"}] * 501]
    for visits in shapeless:
        is_problem(await cam_a.post("/api/edge/visits", json={"visits": visits}), 422, "request-invalid")
    assert await registry.events.page(EventFilter()) == []


def event_of(n: int, event_type: str, user_id: str, site: str, at: datetime) -> IncomingEvent:
    code = {"visit": "EV3", "facial_id": "EV1"}[event_type]
    event = Event(
        event_id=f"{code}-1736942400000-{n:06x}",
        device_id="cam-a",
        user_id=user_id,
        event_type=event_type,  # type: ignore[arg-type]
        timestamp=at,
        confidence=0.9,
    )
    return IncomingEvent(event, site, at)


async def test_visits_of_an_identity_are_counted(api: httpx.AsyncClient, registry: Registry) -> None:
    """Counts are total and by site, with the first and last time."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    start = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
    counted = [("visit", "lobby"), ("facial_id", "lobby"), ("visit", "lobby"), ("visit", "gate")]
    batch = [
        event_of(n, kind, "EMP-1", site, start + timedelta(minutes=n))
        for n, (kind, site) in enumerate(counted)
    ]
    batch += [event_of(100 + n, "visit", "EMP-2", "lobby", start) for n in range(50)]
    await registry.events.record(batch)
    await registry.mongo.db.command("profile", 2)
    answer = await api.get("/api/v1/identities/EMP-1/visits")
    await registry.mongo.db.command("profile", 0)
    assert answer.json() == {
        "user_id": "EMP-1",
        "visits": 3,
        "recognitions": 1,
        "first_at": "2026-01-15T10:00:00.000Z",
        "last_at": "2026-01-15T10:03:00.000Z",
        "by_site": {
            "gate": {"visits": 1, "recognitions": 0},
            "lobby": {"visits": 2, "recognitions": 1},
        },
    }
    (profiled,) = [
        item async for item in registry.mongo.db["system.profile"].find({"command.aggregate": "events"})
    ]
    assert profiled["docsExamined"] == 4
    is_problem(await api.get("/api/v1/identities/EMP-404/visits"), 404, "person-unknown")
