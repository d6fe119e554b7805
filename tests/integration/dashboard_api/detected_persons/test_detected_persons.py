"""`/api/detected-persons`: permissions, filters and answers."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from tests.detected_samples import face_vector, seen, write_person
from tests.integration.dashboard_api.conftest import FACE, NOW, Clock, client_of, is_problem, vector
from tests.waiting import until

PERSONS = "/api/detected-persons"
SECOND = timedelta(seconds=1)


@pytest.fixture
async def person(registry: Registry) -> int:
    """Write a person at the lobby, seen twice by one camera and once by another."""
    return await write_person(
        registry,
        [seen("cam-001", NOW - 20 * SECOND), seen("cam-001", NOW - 10 * SECOND), seen("cam-002", NOW)],
    )


@pytest.fixture
async def other(registry: Registry) -> int:
    """Write a person seen at the gate half an hour ago."""
    at = NOW - timedelta(minutes=30)
    return await write_person(registry, [seen("cam-003", at, site_id="gate", face=face_vector(2))])


@pytest.fixture
async def operator(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, "operator") as client:
        yield client


@pytest.fixture
async def viewer(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, "viewer") as client:
        yield client


async def ids_of(client: httpx.AsyncClient, **params: Any) -> list[int]:
    answer = await client.get(PERSONS, params=params)
    assert answer.status_code == 200, answer.text
    return [one["global_id"] for one in answer.json()["items"]]


# Roles


async def test_a_viewer_reads_all_but_vectors(
    viewer: httpx.AsyncClient, operator: httpx.AsyncClient, person: int, registry: Registry
) -> None:
    """An operator sees it: a unit vector of its space."""
    for path in ("", "/active", f"/{person}", f"/{person}/trail"):
        assert (await viewer.get(PERSONS + path)).status_code == 200
    shown = (await viewer.get(f"{PERSONS}/{person}")).json()
    assert (shown["face_embedding"], shown["face_space"]) == (None, None)
    shown = (await operator.get(f"{PERSONS}/{person}")).json()
    assert np.allclose(shown["face_embedding"], face_vector(1), atol=1e-6)
    assert shown["face_space"] == FACE
    shown = (await operator.get(f"{PERSONS}/{person}", params={"face": "false"})).json()
    assert (shown["global_id"], shown["face_embedding"], shown["face_space"]) == (person, None, None)


async def test_a_missing_permission_is_rejected(app: FastAPI, api: httpx.AsyncClient, person: int) -> None:
    """Viewers do not edit or search; sources and cameras read nothing."""
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/search-by-face", {"face_embedding": vector(1)}),
        ("PATCH", f"/{person}", {"assigned_name": "John Doe"}),
        ("PUT", f"/{person}/link", {"user_id": "EMP-1"}),
        ("DELETE", f"/{person}/link", None),
        ("POST", f"/{person}/merge", {"into": 1}),
        ("POST", f"/{person}/unmerge", None),
        ("DELETE", f"/{person}", None),
        ("GET", "/export", None),
    ]
    async with client_of(app, "viewer") as viewer, client_of(app, "operator") as operator:
        for method, path, body in changes:
            answer = await viewer.request(method, PERSONS + path, json=body)
            is_problem(answer, 403, "role-insufficient")
        is_problem(await operator.get(f"{PERSONS}/export"), 403, "role-insufficient")
    for role in ("source", "edge"):
        async with client_of(app, role) as client:
            is_problem(await client.get(f"{PERSONS}/active"), 403, "role-insufficient")
    async with client_of(app, None) as nobody:
        is_problem(await nobody.get(PERSONS), 401, "key-missing")
    assert (await api.get(f"{PERSONS}/{person}")).json()["assigned_name"] is None


# What is shown


async def test_activity_is_computed_at_the_request(
    api: httpx.AsyncClient, clock: Clock, person: int, other: int
) -> None:
    """A person is active until timeout and write interval have passed."""
    said = (await api.get(f"{PERSONS}/active")).json()
    (shown,) = said["persons"]
    assert (said["active_persons"], shown["global_id"]) == (1, person)
    assert (shown["cameras"], shown["since"]) == (["cam-001", "cam-002"], "2026-01-15T09:59:40.000Z")
    clock.now = NOW + 30 * SECOND
    (shown,) = (await api.get(f"{PERSONS}/active")).json()["persons"]
    assert (shown["cameras"], shown["cameras_visited"]) == (["cam-002"], ["cam-001", "cam-002"])
    clock.now = NOW + 36 * SECOND
    assert (await api.get(f"{PERSONS}/active")).json() == {"active_persons": 0, "persons": []}
    assert (await api.get(f"{PERSONS}/{person}")).json()["is_active"] is False


async def test_all_active_are_counted_and_the_newest_shown(
    api: httpx.AsyncClient, registry: Registry, person: int
) -> None:
    """`limit` bounds the list alone."""
    earlier = [await write_person(registry, [seen("cam-009", NOW - n * SECOND)]) for n in (3, 2, 1)]
    said = (await api.get(f"{PERSONS}/active", params={"limit": 2})).json()
    assert said["active_persons"] == 4
    assert [one["global_id"] for one in said["persons"]] == [person, earlier[-1]]


async def test_pages_show_each_person_once_and_filters_apply(
    api: httpx.AsyncClient, registry: Registry, person: int, other: int
) -> None:
    """Newest first, by cursor."""
    more = [await write_person(registry, [seen("cam-009", NOW - n * SECOND)]) for n in range(1, 4)]
    found, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await api.get(PERSONS, params=params)).json()
        found += [one["global_id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [person, *more, other]
    assert await ids_of(api, active="false") == [other]
    assert await ids_of(api, site_id="gate") == [other]
    assert await ids_of(api, device_id="cam-002") == [person]
    assert await ids_of(api, named="true") == []
    made_up = (b"2026-01-15T10:00:00.000Z\0one", b"9999-12-31T23:59:59-14:00\0001", b"2026-01-15\0001")
    for cursor in ("!", "x" * 500, *(base64.urlsafe_b64encode(one).decode() for one in made_up)):
        is_problem(await api.get(PERSONS, params={"cursor": cursor}), 422, "cursor-invalid")


async def test_a_trail_has_cameras_and_times(api: httpx.AsyncClient, person: int, other: int) -> None:
    """Newest first, by cursor and period, with the members' own ids."""
    await api.post(f"{PERSONS}/{other}/merge", json={"into": person})
    first = (await api.get(f"{PERSONS}/{other}/trail", params={"limit": 2})).json()
    rest = (await api.get(f"{PERSONS}/{person}/trail", params={"cursor": first["next_cursor"]})).json()
    stays = [*first["items"], *rest["items"]]
    assert [(one["device_id"], one["global_id"]) for one in stays] == [
        ("cam-002", person), ("cam-001", person), ("cam-003", other),
    ]  # fmt: skip
    assert (first["global_id"], rest["next_cursor"]) == (person, None)
    assert (stays[1]["since"], stays[1]["until"]) == ("2026-01-15T09:59:40.000Z", "2026-01-15T09:59:50.000Z")
    period = {"since": "2026-01-15T09:50:00Z", "until": "2026-01-15T09:59:55Z"}
    within = (await api.get(f"{PERSONS}/{person}/trail", params=period)).json()["items"]
    assert [one["device_id"] for one in within] == ["cam-001"]


async def test_an_unknown_global_id_is_not_found(api: httpx.AsyncClient, person: int) -> None:
    """For reading and for every change."""
    bodies: list[tuple[str, str, Any]] = [
        ("GET", "", None), ("GET", "/trail", None), ("DELETE", "", None), ("DELETE", "/link", None),
        ("POST", "/unmerge", None), ("POST", "/merge", {"into": person}),
        ("PATCH", "", {"assigned_name": None}),
    ]  # fmt: skip
    for method, path, body in bodies:
        answer = await api.request(method, f"{PERSONS}/4711{path}", json=body)
        is_problem(answer, 404, "detected-person-unknown")
    for number in ("0", "-1", "1.5", "one", str(2**53), "9" * 5000):
        is_problem(await api.get(f"{PERSONS}/{number}"), 422, "request-invalid")


# What people do


async def test_a_name_that_is_assigned_wins_over_the_enrolled_one(
    operator: httpx.AsyncClient, person: int
) -> None:
    """Without either there is none.

    A name is text without control characters, and no picture.
    """
    await operator.post("/api/v1/identities", json={"user_id": "EMP-1", "display_name": "Enrolled Name"})
    path = f"{PERSONS}/{person}"
    assert (await operator.get(path)).json()["name"] is None
    linked = (await operator.put(f"{path}/link", json={"user_id": "EMP-1"})).json()
    assert (linked["user_id"], linked["linked_by"], linked["name"]) == ("EMP-1", "operator", "Enrolled Name")
    named = (await operator.patch(path, json={"assigned_name": " John Doe "})).json()
    assert (named["name"], named["assigned_name"]) == ("John Doe", "John Doe")
    assert (await operator.get(f"{PERSONS}/active")).json()["persons"][0]["name"] == "John Doe"
    assert (await operator.patch(path, json={"assigned_name": None})).json()["name"] == "Enrolled Name"
    for body in ({}, {"assigned_name": " "}, {"assigned_name": "a\nb"}, {"assigned_name": "x", "more": 1}):
        is_problem(await operator.patch(path, json=body), 422, "request-invalid")
    unlinked = (await operator.delete(f"{path}/link")).json()
    assert (unlinked["user_id"], unlinked["linked_by"], unlinked["name"]) == (None, None, None)
    assert await ids_of(operator, user_id="EMP-1") == []


async def test_a_link_is_hidden_while_its_identity_is_deleted(
    operator: httpx.AsyncClient, person: int
) -> None:
    """A restored identity is shown again; a merged one shows its target."""
    for user_id in ("EMP-1", "EMP-2"):
        await operator.post("/api/v1/identities", json={"user_id": user_id, "display_name": f"Of {user_id}"})
    await operator.put(f"{PERSONS}/{person}/link", json={"user_id": "EMP-1"})

    async def shown() -> tuple[Any, ...]:
        said = (await operator.get(f"{PERSONS}/{person}")).json()
        return said["user_id"], said["linked_by"], said["name"]

    await operator.delete("/api/v1/identities/EMP-1")
    assert await shown() == (None, None, None)
    await operator.post("/api/v1/identities/EMP-1/restore")
    assert await shown() == ("EMP-1", "operator", "Of EMP-1")
    await operator.post("/api/v1/identities/EMP-1/merge", json={"into": "EMP-2"})
    assert await shown() == ("EMP-2", "operator", "Of EMP-2")
    assert await ids_of(operator, user_id="EMP-2") == [person]
    refused = await operator.put(f"{PERSONS}/{person}/link", json={"user_id": "EMP-1"})
    is_problem(refused, 409, "person-merged")
    refused = await operator.put(f"{PERSONS}/{person}/link", json={"user_id": "NOBODY"})
    is_problem(refused, 404, "person-unknown")


async def test_two_persons_are_merged_and_unmerged(
    operator: httpx.AsyncClient, person: int, other: int
) -> None:
    """The merged id answers with its group, and is on no list."""
    merged = (await operator.post(f"{PERSONS}/{other}/merge", json={"into": person})).json()
    assert (merged["global_id"], merged["merged"], merged["total_detections"]) == (person, [other], 4)
    assert merged["cameras_visited"] == ["cam-003", "cam-001", "cam-002"]
    assert (await operator.get(f"{PERSONS}/{other}")).json()["global_id"] == person
    assert await ids_of(operator) == [person]
    again = await operator.post(f"{PERSONS}/{other}/merge", json={"into": person})
    document = is_problem(again, 409, "merge-impossible")
    assert f"merged into {person}" in document["detail"]
    is_problem(await operator.delete(f"{PERSONS}/{other}"), 409, "merge-impossible")
    parted = (await operator.post(f"{PERSONS}/{other}/unmerge")).json()
    assert (parted["global_id"], parted["merged"], parted["total_detections"]) == (other, [], 1)
    assert await ids_of(operator) == [person, other]


async def test_a_deleted_person_is_gone_and_the_audit_has_the_key(
    operator: httpx.AsyncClient, api: httpx.AsyncClient, person: int, other: int
) -> None:
    """Under `#` and the number, which can be no user id."""
    await operator.post(f"{PERSONS}/{other}/merge", json={"into": person})
    assert (await operator.delete(f"{PERSONS}/{person}")).json() == {"global_ids": [person, other]}
    for number in (person, other):
        is_problem(await operator.get(f"{PERSONS}/{number}"), 404, "detected-person-unknown")
    entries = (await api.get("/api/v1/audit", params={"subject": f"#{person}"})).json()["items"]
    assert [(one["what"], one["who"]) for one in entries] == [("detected-person.deleted", "operator")]
    assert entries[0]["after"] == {"global_ids": [person, other]}


# Heights


async def test_heights_are_in_metres_where_cameras_are_calibrated(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """The mean over those cameras; the others know pixels alone."""
    boxes = {"cam-001": (0, 0, 100, 250), "cam-002": (0, 0, 105, 260), "cam-003": (0, 0, 98, 900)}
    person = await write_person(registry, [seen(device, NOW, box=box) for device, box in boxes.items()])
    for device in boxes:
        await registry.devices.register(device, "lobby")
    assert (await api.get(f"{PERSONS}/{person}")).json()["avg_height_meters"] is None
    first = await api.patch("/api/v1/devices/cam-001", json={"metres_per_pixel": 0.007})
    assert first.json()["metres_per_pixel"] == 0.007
    await api.patch("/api/v1/devices/cam-002", json={"metres_per_pixel": 0.0065})
    height = (await api.get(f"{PERSONS}/{person}")).json()["avg_height_meters"]
    assert height == pytest.approx((250 * 0.007 + 260 * 0.0065) / 2)
    await api.patch("/api/v1/devices/cam-001", json={"metres_per_pixel": None})
    height = (await api.get(f"{PERSONS}/{person}")).json()["avg_height_meters"]
    assert height == pytest.approx(260 * 0.0065)
    entries = (await api.get("/api/v1/audit", params={"subject": "cam-001"})).json()["items"]
    said = [entry["after"] for entry in entries if entry["what"] == "device.calibrated"]
    assert sorted(said, key=str) == [{"metres_per_pixel": 0.007}, {"metres_per_pixel": None}]


async def test_only_an_admin_calibrates_and_only_what_can_be(app: FastAPI, api: httpx.AsyncClient) -> None:
    """A pixel shows something, at most a metre."""
    await api.post("/api/v1/devices", json={"device_id": "cam-001", "site_id": "lobby"})
    async with client_of(app, "operator") as operator:
        refused = await operator.patch("/api/v1/devices/cam-001", json={"metres_per_pixel": 0.01})
        is_problem(refused, 403, "role-insufficient")
    for value in (0, -0.1, 1.5, "0.01"):
        refused = await api.patch("/api/v1/devices/cam-001", json={"metres_per_pixel": value})
        is_problem(refused, 422, "request-invalid")
    unknown = await api.patch("/api/v1/devices/cam-404", json={"metres_per_pixel": 0.01})
    is_problem(unknown, 404, "device-unknown")


# Faces


async def search(client: httpx.AsyncClient, face: Any, **more: Any) -> list[dict[str, Any]]:
    answer = await client.post(f"{PERSONS}/search-by-face", json={"face_embedding": face.tolist(), **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["matches"]
    return found


async def test_a_search_returns_each_person_once_with_its_name(
    operator: httpx.AsyncClient, registry: Registry, person: int, other: int
) -> None:
    """A search returns each merge group once, by its most similar member.

    Groups below the threshold are left out.
    """
    twins = [await write_person(registry, [seen("cam-004", NOW)]) for _ in range(3)]
    for twin in twins[:2]:
        await operator.post(f"{PERSONS}/{twin}/merge", json={"into": person})
    await operator.patch(f"{PERSONS}/{person}", json={"assigned_name": "John Doe"})
    found = await search(operator, face_vector(1), threshold=0.9, limit=2)
    assert {one["global_id"] for one in found} == {person, twins[2]}
    assert [one["similarity"] for one in found] == [1.0, 1.0]
    assert {one["name"] for one in found} == {"John Doe", None}
    assert len(await search(operator, face_vector(1), threshold=0.9, limit=1)) == 1
    assert [one["global_id"] for one in await search(operator, face_vector(2), threshold=0.99)] == [other]
    everybody = await search(operator, face_vector(2), threshold=-1.0)
    assert (everybody[0]["global_id"], len(everybody)) == (other, 3)


async def test_a_search_takes_a_face_of_its_space(operator: httpx.AsyncClient, person: int) -> None:
    """The default one unless another is named."""
    path = f"{PERSONS}/search-by-face"
    is_problem(await operator.post(path, json={"face_embedding": [1.0] * 4}), 422, "vector-invalid")
    is_problem(await operator.post(path, json={"face_embedding": [0.0] * 8}), 422, "vector-invalid")
    unknown = {"face_embedding": [1.0] * 8, "space": "face:nothing"}
    is_problem(await operator.post(path, json=unknown), 422, "space-unknown")
    other = {"face_embedding": [1.0] * 4, "space": "gait:test-4"}
    assert (await operator.post(path, json=other)).json() == {"matches": []}


async def test_the_api_follows_new_and_deleted_persons(
    app: FastAPI, operator: httpx.AsyncClient, registry: Registry, person: int
) -> None:
    """A running app finds what the tracker writes in another program."""
    async with app.router.lifespan_context(app):
        assert await search(operator, face_vector(7), threshold=0.99) == []
        new = await write_person(registry, [seen("cam-001", NOW, face=face_vector(7))])

        async def found() -> list[int]:
            return [one["global_id"] for one in await search(operator, face_vector(7), threshold=0.99)]

        async def is_found() -> bool:
            return await found() == [new]

        await until(is_found)
        await operator.delete(f"{PERSONS}/{new}")
        assert await found() == []


# Export


async def test_an_export_has_a_line_per_person(
    api: httpx.AsyncClient, registry: Registry, person: int, other: int
) -> None:
    """It has vectors and merged persons, is not cached, and is audited."""
    await api.post(f"{PERSONS}/{other}/merge", json={"into": person})
    answer = await api.get(f"{PERSONS}/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.headers["cache-control"] == "no-store"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(one["global_id"], one["merged_into"]) for one in lines] == [(person, None), (other, person)]
    (face,) = lines[0]["faces"]
    exported = np.frombuffer(base64.b64decode(face["vector"]), dtype="<f4")
    assert (face["space"], np.allclose(exported, face_vector(1))) == (FACE, True)
    assert lines[0]["cameras"][0]["bbox"] == [100.0, 150.0, 200.0, 400.0]
    entries = (await api.get("/api/v1/audit", params={"subject": "#*"})).json()["items"]
    assert [entry["what"] for entry in entries] == ["detected-persons.exported"]
