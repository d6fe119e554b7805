"""Devices that poll over HTTP: what they are told, what they confirm and report, and what they may not."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.devices import Report
from broker_bridge.registry.events import Incoming
from broker_bridge.registry.people import Enrollment, Template
from deploy.local.stack import Mongod
from tests.conftest import StartProgram

from .conftest import FACE, GAIT, Clock, client_of, is_problem, vector
from .test_program import ARGS, settings

SYNC = "/api/edge/sync"
PLACES = {"cam-a": "lobby", "cam-b": "gate"}


def face(n: int) -> Template:
    return Template(FACE, normalise(vector(n), 8), 0.9)


def axis(n: int, aside: float = 0.0) -> list[float]:
    """A direction at a right angle to every other; with `aside` a little towards the next."""
    numbers = [0.0] * 8
    numbers[n], numbers[(n + 1) % 8] = 1.0, aside
    return numbers


@pytest.fixture(autouse=True)
def real_time(clock: Clock) -> None:
    """People are dated by the registry's clock, so the API has to go by the same."""
    clock.now = datetime.now(timezone.utc)


async def device_client(app: FastAPI, registry: Registry, device_id: str, site: str, **more: Any) -> Any:
    await registry.devices.register(device_id, site, **more)
    await registry.api_keys.create(device_id, "edge", f"key-of-{device_id}", device_id)
    client = client_of(app, None)
    client.headers["Authorization"] = f"Bearer key-of-{device_id}"
    return client


@pytest.fixture
async def cam_a(app: FastAPI, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """`cam-a` at the lobby."""
    async with await device_client(app, registry, "cam-a", "lobby") as client:
        yield client


@pytest.fixture
async def cam_b(app: FastAPI, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """`cam-b` at the gate."""
    async with await device_client(app, registry, "cam-b", "gate") as client:
        yield client


async def sync(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.get(SYNC, params=asked)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    assert said["success"] is True
    assert said["deleted"] == [one["face_id"] for one in said["changes"] if one["action"] == "delete"]
    return said


def told(said: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["action"], one["face_id"]) for one in said["changes"]]


class PollingDevice:
    """As a device that follows `docs/edge-http.md`: it keeps faces, and where it stands."""

    def __init__(self, client: httpx.AsyncClient, limit: int, *, by_time: bool = False) -> None:
        self.client = client
        self.limit = limit
        self.by_time = by_time
        self.faces: dict[str, tuple[str | None, frozenset[str]]] = {}
        self.since: dict[str, Any] = {}
        self.resets = 0

    async def poll(self) -> None:
        path, named = f"{SYNC}?{httpx.QueryParams({**self.since, 'limit': self.limit})}", None
        while path:
            answer = await self.client.get(path)
            assert answer.status_code == 200, answer.text
            said = answer.json()
            if said["reset"]:
                named = set()
                self.resets += 1
            for change in said["changes"]:
                if change["action"] == "delete":
                    self.faces.pop(change["face_id"], None)
                    continue
                if named is not None:
                    named.add(change["face_id"])
                if change["action"] == "update":
                    assert change["face_id"] in self.faces, "an update of somebody whom it does not have"
                held = frozenset(one["embedding"] for one in change["templates"])
                self.faces[change["face_id"]] = (change["flag"], held)
            path = said["next"]
        if named is not None:
            self.faces = {key: held for key, held in self.faces.items() if key in named}
        self.since = {"since": said["version"], "epoch": said["epoch"]}
        if self.by_time:
            self.since = {"since": said["sync_timestamp"]}


async def held_at(registry: Registry, site: str) -> dict[str, tuple[str | None, frozenset[str]]]:
    """What a device of the site should hold."""
    people = [one for one in await registry.identities.page(limit=1000) if one.belongs_to(site)]
    templates = await registry.identities.templates_of([one.user_id for one in people])
    return {
        one.user_id: (
            one.flag,
            frozenset(
                base64.b64encode(t.vector).decode()
                for t in templates.get(one.user_id, [])
                if one.may_be_sent(t.space)
            ),
        )
        for one in people
    }


async def purge(registry: Registry, user_id: str, reach: str) -> None:
    """As the registry does with tombstones older than their retention."""
    person = await registry.identities.get(user_id)
    assert person.deleted_at is not None

    async def work(session: Any) -> None:
        await registry.mongo.db.identities.delete_one({"_id": user_id}, session=session)
        await registry.versions.raise_horizons(session, {reach: person.version}, person.deleted_at)

    await registry.mongo.transact(work)


# What a device is told


async def test_without_a_position_everybody_of_the_site_is_told_whole(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """With vectors and flags, without names; tombstones and people of other sites are nobody's business."""
    await registry.identities.enroll_many(
        [
            Enrollment("EMP-1", (face(1),), display_name="Ana", flag="red", sites=("lobby",)),
            Enrollment("EMP-2", (face(2),), sites=("gate",)),
            Enrollment("EMP-3", (face(3),)),
            Enrollment("EMP-4", (face(4),), sites=("lobby",)),
        ]
    )
    await registry.identities.delete("EMP-4")
    for asked in ({}, {"since": 0}):
        said = await sync(cam_a, **asked)
        assert told(said) == [("create", "EMP-1"), ("create", "EMP-3")]
        assert (said["reset"], said["more"], said["next"], said["version"]) == (True, False, None, 5)
    first = said["changes"][0]
    (template,) = first.pop("templates")
    assert first == {"action": "create", "face_id": "EMP-1", "version": 1, "flag": "red"}
    assert base64.b64decode(template["embedding"]) == face(1).vector
    assert (template["space"], template["quality"]) == (FACE, 0.9)


async def test_a_name_travels_to_a_device_in_dev_mode_alone(app: FastAPI, registry: Registry) -> None:
    """The device's registration decides, not what it says of itself."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), display_name="Ana"))
    for device_id, dev_mode in (("cam-dev", True), ("cam-door", False)):
        async with await device_client(app, registry, device_id, "lobby", dev_mode=dev_mode) as client:
            (change,) = (await sync(client))["changes"]
            assert change.get("name") == ("Ana" if dev_mode else None)
            assert ("name" in change) == dev_mode


async def test_create_update_and_delete_are_told_once_each(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """As in the seed: somebody new, a flag on somebody known, somebody gone."""
    await registry.identities.enroll_many(
        [Enrollment(f"visitor_{n}", (face(n),), sites=("lobby",)) for n in (3, 5)]
    )
    stand = await sync(cam_a)
    await registry.identities.delete("visitor_5")
    await registry.identities.enroll(Enrollment("visitor_3", flag="red"))
    await registry.identities.enroll(Enrollment("visitor_10", (face(10),), sites=("lobby",)))
    said = await sync(cam_a, since=stand["version"], epoch=stand["epoch"])
    assert told(said) == [("delete", "visitor_5"), ("update", "visitor_3"), ("create", "visitor_10")]
    assert (said["reset"], said["changes"][1]["flag"]) == (False, "red")
    again = await sync(cam_a, since=said["version"], epoch=said["epoch"])
    assert (again["changes"], again["version"]) == ([], said["version"])


async def test_whoever_goes_on_by_time_misses_nothing(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """By `sync_timestamp` of the answer before: what was under way then is told, some of it twice."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), sites=("lobby",)))
    stand = await sync(cam_a)
    assert datetime.fromisoformat(stand["sync_timestamp"][:-1] + "+00:00") < datetime.now(timezone.utc)
    await registry.identities.delete("EMP-1")
    said = await sync(cam_a, since=stand["sync_timestamp"])
    assert (said["deleted"], said["reset"]) == (["EMP-1"], False)
    late = format_time(datetime.now(timezone.utc) + timedelta(seconds=5))
    assert (await sync(cam_a, since=late))["changes"] == []
    assert (await sync(cam_a, since="2020-01-01T00:00:00+01:00"))["deleted"] == ["EMP-1"]


async def test_a_time_that_lies_ahead_starts_over(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """A clock that is wrong must not make a device miss anything."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), sites=("lobby",)))
    said = await sync(cam_a, since="2099-01-01T00:00:00Z")
    assert (said["reset"], told(said)) == (True, [("create", "EMP-1")])


async def test_only_what_may_leave_and_was_asked_for_is_told(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """Consent by modality, spaces by the query, else by what the device declares; or no vectors at all."""
    walk = Template(GAIT, normalise([1.0, 2.0, 3.0, 4.0], 4))
    await registry.identities.enroll(Enrollment("EMP-1", (face(1), walk), sites=("lobby",)))

    async def spaces(**asked: Any) -> list[str]:
        (change,) = (await sync(cam_a, **asked))["changes"]
        return [one["space"] for one in change["templates"]]

    assert sorted(await spaces()) == [FACE, GAIT]
    assert await spaces(spaces=GAIT) == [GAIT]
    assert sorted(await spaces(spaces=f"{GAIT},{FACE}")) == [FACE, GAIT]
    info = {"spaces": {FACE: {"dimension": 8}}}
    await registry.devices.note([Report.of("cam-a", "info", info, datetime.now(timezone.utc))])
    assert await spaces() == [FACE]
    assert "templates" not in (await sync(cam_a, vectors="false"))["changes"][0]
    await registry.identities.enroll(Enrollment("EMP-1", consent={"face": False}))
    assert await spaces() == []


@pytest.mark.parametrize("by_time", [False, True])
async def test_a_device_that_was_away_holds_what_the_registry_does(
    cam_a: httpx.AsyncClient, registry: Registry, *, by_time: bool
) -> None:
    """Changes, deletions, restores, moves and withdrawn consent while it was away, in pages of two."""
    people = registry.identities
    await people.enroll_many([Enrollment(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in range(8)])
    device = PollingDevice(cam_a, 2, by_time=by_time)
    await device.poll()
    assert device.faces == await held_at(registry, "lobby")
    await people.delete("EMP-1")
    await people.delete("EMP-2")
    await people.restore("EMP-2")
    await people.delete("EMP-3")
    await people.enroll(Enrollment("EMP-3", (face(30),), sites=("lobby",)))
    await people.enroll(Enrollment("EMP-4", sites=("gate",)))
    await people.enroll(Enrollment("EMP-5", flag="red"))
    await people.enroll(Enrollment("EMP-6", consent={"face": False}))
    await people.enroll(Enrollment("EMP-9", (face(9),), sites=("gate",)))
    await people.enroll(Enrollment("EMP-9", sites=("gate", "lobby")))
    if by_time:
        # Told in one page: many changes of one minute cannot be told apart by time.
        device.limit = 100
    await device.poll()
    assert device.faces == await held_at(registry, "lobby")
    assert (set(device.faces), device.resets) == ({f"EMP-{n}" for n in (0, 2, 3, 5, 6, 7, 9)}, 1)


async def test_another_history_and_purged_tombstones_start_over(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """By version as by time; and a snapshot of many pages comes to its end below the horizon too."""
    people = registry.identities
    await people.enroll_many([Enrollment(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in range(6)])
    by_version, by_time = PollingDevice(cam_a, 2), PollingDevice(cam_a, 100, by_time=True)
    for device in (by_version, by_time):
        await device.poll()
    await people.delete("EMP-0")
    await people.enroll(Enrollment("EMP-9", (face(9),), sites=("lobby",)))
    await purge(registry, "EMP-0", "lobby")
    for device in (by_version, by_time):
        await device.poll()
        assert (device.resets, device.faces) == (2, await held_at(registry, "lobby"))
    # Nobody has to start over twice for one purge.
    await by_version.poll()
    assert by_version.resets == 2
    await registry.versions.begin_epoch()
    await by_version.poll()
    assert by_version.resets == 3
    ahead = await sync(cam_a, since=10**6)
    assert (ahead["reset"], len(ahead["changes"])) == (True, 6)


async def test_the_purge_of_another_site_starts_nobody_over(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """A tombstone that this site never heard of."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), sites=("lobby",)))
    stand = await sync(cam_a)
    await registry.identities.enroll(Enrollment("EMP-2", (face(2),), sites=("gate",)))
    await registry.identities.delete("EMP-2")
    await purge(registry, "EMP-2", "gate")
    said = await sync(cam_a, since=stand["version"], epoch=stand["epoch"])
    assert (said["reset"], said["changes"]) == (False, [])


async def test_a_page_is_bounded_by_bytes_too(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """However many people were asked for: `more`, and where to go on."""
    orders = [Enrollment(f"EMP-{n:04}", (face(n),), sites=("lobby",)) for n in range(1000)]
    await registry.identities.enroll_many(orders)
    answer = await cam_a.get(SYNC, params={"limit": 1000})
    said = answer.json()
    assert (said["more"], said["reset"], len(answer.content) < 400_000) == (True, True, True)
    device = PollingDevice(cam_a, 1000)
    await device.poll()
    assert (len(device.faces), device.resets) == (1000, 1)


# Several sites


async def test_a_device_sees_its_own_site_alone(
    cam_a: httpx.AsyncClient, cam_b: httpx.AsyncClient, registry: Registry, api: httpx.AsyncClient
) -> None:
    """It neither hears of nor confirms nor visits whom its site never had."""
    await registry.identities.enroll(Enrollment("EMP-A", (face(1),), sites=("lobby",)))
    await registry.identities.enroll(Enrollment("EMP-B", (face(2),), sites=("gate",)))
    tombstone = await registry.identities.delete("EMP-B")
    for asked in ({}, {"since": 1}):
        assert "EMP-B" not in (await cam_a.get(SYNC, params=asked)).text
    epoch = (await sync(cam_a))["epoch"]
    await cam_a.post("/api/edge/confirm", json={"epoch": epoch, "version": tombstone.version})
    shown = (await api.get("/api/v1/identities/EMP-B/confirmations")).json()
    assert (shown["confirmed"], shown["waiting"]) == ([], ["cam-b"])
    visit = {"face_id": "EMP-B", "timestamp": "2026-01-15T10:00:00Z"}
    reported = (await cam_a.post("/api/edge/visits", json={"visits": [visit]})).json()
    assert reported["errors"][0]["code"] in {"person-unknown", "event-time-implausible"}
    assert told(await sync(cam_b, since=1)) == [("delete", "EMP-B")]


async def test_who_moves_goes_from_one_site_and_comes_to_the_other(
    cam_a: httpx.AsyncClient, cam_b: httpx.AsyncClient, registry: Registry
) -> None:
    """A delete there and a create here, of somebody who was made long before."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), sites=("lobby",)))
    await registry.identities.enroll(Enrollment("EMP-2", (face(2),)))
    stands = [await sync(client) for client in (cam_a, cam_b)]
    await registry.identities.enroll(Enrollment("EMP-1", sites=("gate",)))
    said = [
        await sync(client, since=stand["version"], epoch=stand["epoch"])
        for client, stand in zip((cam_a, cam_b), stands, strict=True)
    ]
    assert [told(one) for one in said] == [[("delete", "EMP-1")], [("create", "EMP-1")]]
    assert said[1]["changes"][0]["templates"]


# Confirmation


async def test_a_confirmation_counts_like_one_over_mqtt(
    cam_a: httpx.AsyncClient, api: httpx.AsyncClient, registry: Registry
) -> None:
    """Once the device says that it holds the version of the deletion."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), sites=("lobby",)))
    await registry.identities.delete("EMP-1")
    said = await sync(cam_a)
    for version, summary in ((1, "0 of 1 devices"), (said["version"], "1 of 1 devices")):
        answer = await cam_a.post("/api/edge/confirm", json={"epoch": said["epoch"], "version": version})
        assert answer.json() == {
            "success": True, "device_id": "cam-a", "epoch": said["epoch"], "version": version
        }  # fmt: skip
        shown = (await api.get("/api/v1/identities/EMP-1/confirmations")).json()
        assert shown["summary"] == summary


async def test_nothing_is_confirmed_that_has_not_happened(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """A version ahead would confirm deletions to come; another history's says nothing about this one."""
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
    assert "applied" not in (await registry.devices.get("cam-a") or {})


# New visitors


@pytest.fixture
async def open_lobby(registry: Registry, cam_a: httpx.AsyncClient) -> httpx.AsyncClient:
    """`cam-a`, where visitors may be registered."""
    await registry.sites.set_policy("lobby", "visitors", who="tester", at=datetime.now(timezone.utc))
    return cam_a


async def upload(client: httpx.AsyncClient, request_id: str, **body: Any) -> httpx.Response:
    return await client.post("/api/edge/visitors", json={"request_id": request_id, **body})


async def test_the_upload_of_a_new_visitor_returns_the_id(
    open_lobby: httpx.AsyncClient, registry: Registry
) -> None:
    """201 and an id of this site; the same request is answered the same and makes nobody else."""
    answers = [
        await upload(open_lobby, "r-1", embedding=axis(1), quality=0.8, name="A guest") for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    said = answers[0].json()
    assert answers[1].json() == said
    assert said == {
        "success": True,
        "result": "created",
        "user_id": said["face_id"],
        "face_id": said["face_id"],
        "similarity": None,
    }
    person = await registry.identities.get(said["face_id"])
    assert (person.kind, person.sites, person.display_name) == ("visitor", ("lobby",), "A guest")
    assert (await registry.versions.read()).version == 1


async def test_whoever_is_known_exists_and_has_come_once_more(
    open_lobby: httpx.AsyncClient, registry: Registry
) -> None:
    """The first device wins; the visit is recorded by the registry, under the device that asks."""
    await registry.identities.enroll(Enrollment("EMP-1", (Template(FACE, normalise(axis(1), 8)),)))
    encoded = base64.b64encode(normalise(axis(1, 0.1), 8)).decode()
    answer = await upload(open_lobby, "r-1", vector=encoded, space=FACE)
    assert (answer.status_code, answer.json()["result"], answer.json()["face_id"]) == (200, "exists", "EMP-1")
    assert answer.json()["similarity"] == pytest.approx(0.995, abs=1e-3)
    (visit,) = await registry.events.page({"event_type": "visit"})
    assert (visit["device_id"], visit["user_id"], visit["site_id"]) == ("cam-a", "EMP-1", "lobby")


async def test_two_devices_that_upload_the_same_face_at_once_get_one_id(
    open_lobby: httpx.AsyncClient, app: FastAPI, registry: Registry
) -> None:
    """Five faces, each from both: one makes the visitor, the other is told who that is."""
    async with await device_client(app, registry, "cam-a2", "lobby") as second:
        for n in range(5):
            answers = await asyncio.gather(
                *(upload(client, f"r-{n}", embedding=axis(n)) for client in (open_lobby, second))
            )
            assert sorted(answer.status_code for answer in answers) == [200, 201]
            assert len({answer.json()["face_id"] for answer in answers}) == 1
    assert len(await registry.events.page({"event_type": "visit"})) == 5


async def test_what_cannot_be_registered_is_a_problem_with_its_code(
    open_lobby: httpx.AsyncClient, cam_b: httpx.AsyncClient, registry: Registry
) -> None:
    """Look-alikes, a closed site, vectors that are none, fields that nobody knows."""
    await registry.identities.enroll(Enrollment("EMP-1", (Template(FACE, normalise(axis(1), 8)),)))
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


async def report(client: httpx.AsyncClient, *visits: Any) -> dict[str, Any]:
    answer = await client.post("/api/edge/visits", json={"visits": list(visits)})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def ago(seconds: float) -> str:
    return format_time(datetime.now(timezone.utc) - timedelta(seconds=seconds))


async def test_reported_visits_are_recorded_once(
    cam_a: httpx.AsyncClient, api: httpx.AsyncClient, registry: Registry
) -> None:
    """With an id of the device's or one that follows from the report; repeated, nothing changes."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),), sites=("lobby",)))
    visits = [
        {"event_id": "EV3-1736942400000-a1b2c3", "face_id": "EMP-1", "timestamp": ago(60), "confidence": 0.9},
        {"face_id": "EMP-1", "timestamp": ago(30)},
    ]
    first, again = [await report(cam_a, *visits) for _ in range(2)]
    assert (first["success"], first["recorded"], again["recorded"]) == (True, 2, 0)
    assert (first["stored"], len(first["stored"])) == (again["stored"], 2)
    events = (await api.get("/api/v1/events", params={"user_id": "EMP-1"})).json()["items"]
    assert {(one["event_type"], one["device_id"], one["site_id"]) for one in events} == {
        ("visit", "cam-a", "lobby")
    }
    assert {one["timestamp"] for one in events} == {one["timestamp"] for one in visits}


async def test_each_visit_is_judged_by_itself(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """What is wrong is told by its place in the request; the rest is recorded."""
    people = registry.identities
    await people.enroll_many([Enrollment(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in (1, 2)])
    before = ago(1)
    await people.delete("EMP-2")
    good = {"face_id": "EMP-1", "timestamp": ago(10)}
    cases: list[tuple[Any, str | None]] = [
        (good, None),
        ({"face_id": "EMP-404", "timestamp": ago(10)}, "person-unknown"),
        ({"face_id": "EMP-2", "timestamp": before}, None),
        ({"face_id": "EMP-2", "timestamp": ago(-60)}, "person-unknown"),
        ({"face_id": "EMP-1", "timestamp": "yesterday"}, "event-invalid"),
        ({"face_id": "EMP-1", "timestamp": "2026-01-15T10:00:00"}, "event-invalid"),
        ({"face_id": "EMP-1", "timestamp": "1999-01-01T00:00:00Z"}, "event-time-implausible"),
        ({"face_id": "EMP-1", "timestamp": "9999-12-31T23:59:59Z"}, "event-time-implausible"),
        ({"face_id": {"$ne": ""}, "timestamp": ago(10)}, "event-invalid"),
        ({"face_id": "a/b", "timestamp": ago(10)}, "event-invalid"),
        ({**good, "event_id": "EV1-1736942400000-a1b2c3"}, "event-invalid"),
        ({**good, "confidence": 1.5}, "event-invalid"),
        ({**good, "device_id": "cam-b"}, "event-invalid"),
    ]
    said = await report(cam_a, *(visit for visit, _ in cases))
    assert {one["index"]: one["code"] for one in said["errors"]} == {
        place: code for place, (_, code) in enumerate(cases) if code
    }
    assert (said["success"], said["recorded"]) == (False, 2)


async def test_a_report_that_is_none_is_refused(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """Empty, endless, or of another shape."""
    shapeless: list[Any] = [[], {}, None, "x", [7], [[]], [{"face_id": "EMP-1"}] * 501]
    for visits in shapeless:
        is_problem(await cam_a.post("/api/edge/visits", json={"visits": visits}), 422, "request-invalid")
    assert await registry.events.page({}) == []


def event_of(n: int, event_type: str, user_id: str, site: str, at: datetime) -> Incoming:
    code = {"visit": "EV3", "facial_id": "EV1"}[event_type]
    event = Event(
        event_id=f"{code}-1736942400000-{n:06x}",
        device_id="cam-a",
        user_id=user_id,
        event_type=event_type,  # type: ignore[arg-type]
        timestamp=at,
        confidence=0.9,
    )
    return Incoming(event, site, at)


async def test_visits_of_a_person_are_counted(api: httpx.AsyncClient, registry: Registry) -> None:
    """In all and by site, from the first to the last, looking at that person's events alone."""
    await registry.identities.enroll(Enrollment("EMP-1", (face(1),)))
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
        one async for one in registry.mongo.db["system.profile"].find({"command.aggregate": "events"})
    ]
    assert profiled["docsExamined"] == 4
    is_problem(await api.get("/api/v1/identities/EMP-404/visits"), 404, "person-unknown")


# Keys, and what is no request


async def test_an_edge_key_is_a_devices_and_opens_nothing_else(
    app: FastAPI, registry: Registry, cam_a: httpx.AsyncClient
) -> None:
    """Without a device, or with one that is not registered, 403; other roles have no business there."""
    async with client_of(app, "edge") as nobodys:
        is_problem(await nobodys.get(SYNC), 403, "key-without-device")
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


def test_a_key_is_made_for_a_registered_device(
    mongod: Mongod, mongo_database: str, registry: Registry, start_program: StartProgram
) -> None:
    """Else one sentence says what to do first; no other role has a device."""
    env = settings(mongod, mongo_database, photos=False)

    def new_key(*more: str) -> tuple[int, str]:
        maker = start_program([*ARGS, "new-key", "door", *more], env)
        return maker.wait(20), maker.output()

    status, said = new_key("--role", "edge", "--device", "cam-9")
    assert (status, "cam-9 is not registered" in said) == (2, True)
    for wrong in (["--role", "edge"], ["--role", "viewer", "--device", "cam-9"]):
        assert new_key(*wrong)[0] == 2
    assert "Traceback" not in said


async def test_the_key_of_a_device_is_bound_to_it(
    mongod: Mongod, mongo_database: str, registry: Registry, start_program: StartProgram
) -> None:
    """As the program makes it."""
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


async def test_a_position_that_is_none_is_refused(cam_a: httpx.AsyncClient) -> None:
    """Odd times, negative and huge versions, operators; times without an offset, and a + that was not
    encoded and came as a blank."""
    for query in NO_POSITIONS:
        answer = await cam_a.get(f"{SYNC}?{query}")
        assert answer.status_code == 422, (query, answer.text)
        is_problem(answer, 422, answer.json()["code"])
        assert len(answer.text) < 2000
