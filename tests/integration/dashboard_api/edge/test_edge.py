"""Polling devices get new, changed and deleted identities of their site."""

import base64
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from tests.integration.dashboard_api.conftest import FACE, GAIT, device_client, vector

SYNC = "/api/edge/sync"


def face(n: int) -> Template:
    return Template(FACE, normalise(vector(n), 8), 0.9)


async def sync(client: httpx.AsyncClient, **requested: Any) -> dict[str, Any]:
    answer = await client.get(SYNC, params=requested)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["success"] is True
    assert body["deleted"] == [item["face_id"] for item in body["changes"] if item["action"] == "delete"]
    return body


def changes_of(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["action"], item["face_id"]) for item in body["changes"]]


class PollingDevice:
    """A device that follows `docs/edge-http.md` and keeps faces and position."""

    def __init__(self, client: httpx.AsyncClient, limit: int, *, by_time: bool = False) -> None:
        self.client = client
        self.limit = limit
        self.by_time = by_time
        self.faces: dict[str, tuple[str | None, frozenset[str]]] = {}
        self.since: dict[str, Any] = {}
        self.resets = 0
        self.actions: dict[str, str] = {}

    async def poll(self) -> None:
        path, named = f"{SYNC}?{httpx.QueryParams({**self.since, 'limit': self.limit})}", None
        while path:
            answer = await self.client.get(path)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            if body["reset"]:
                named = set()
                self.resets += 1
            for change in body["changes"]:
                self.actions[change["face_id"]] = change["action"]
                if change["action"] == "delete":
                    self.faces.pop(change["face_id"], None)
                    continue
                if named is not None:
                    named.add(change["face_id"])
                if change["action"] == "update":
                    assert change["face_id"] in self.faces, "an update of an identity that it does not have"
                stored = frozenset(item["embedding"] for item in change["templates"])
                self.faces[change["face_id"]] = (change["flag"], stored)
            path = body["next"]
        if named is not None:
            self.faces = {key: stored for key, stored in self.faces.items() if key in named}
        self.since = {"since": body["version"], "epoch": body["epoch"]}
        if self.by_time:
            self.since = {"since": body["sync_timestamp"]}


async def expected_at(registry: Registry, site: str) -> dict[str, tuple[str | None, frozenset[str]]]:
    """Return the faces that a device of the site should have."""
    identities = [item for item in await registry.identities.page(limit=1000) if item.belongs_to(site)]
    templates = await registry.identities.templates_of([item.user_id for item in identities])
    return {
        item.user_id: (
            item.flag,
            frozenset(
                base64.b64encode(t.vector).decode()
                for t in templates.get(item.user_id, [])
                if item.may_be_sent(t.space)
            ),
        )
        for item in identities
    }


async def purge(registry: Registry, user_id: str, site_id: str) -> None:
    """Purge tombstones as the registry does after their retention."""
    identity = await registry.identities.get(user_id)
    assert identity.deleted_at is not None

    async def work(session: Any) -> None:
        await registry.mongo.db.identities.delete_one({"_id": user_id}, session=session)
        await registry.versions.raise_horizons(session, {site_id: identity.version}, identity.deleted_at)

    await registry.mongo.transact(work)


# What a device receives


async def test_without_a_position_the_whole_site_is_sent(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """Vectors and flags, no names, no tombstones, no identities of other sites."""
    await registry.identities.enroll_many(
        [
            EnrollIdentity("EMP-1", (face(1),), display_name="Ana", flag="red", sites=("lobby",)),
            EnrollIdentity("EMP-2", (face(2),), sites=("gate",)),
            EnrollIdentity("EMP-3", (face(3),)),
            EnrollIdentity("EMP-4", (face(4),), sites=("lobby",)),
        ]
    )
    await registry.identities.delete("EMP-4")
    for requested in ({}, {"since": 0}):
        body = await sync(cam_a, **requested)
        assert changes_of(body) == [("create", "EMP-1"), ("create", "EMP-3")]
        assert (body["reset"], body["more"], body["next"], body["version"]) == (True, False, None, 5)
    first = body["changes"][0]
    (template,) = first.pop("templates")
    assert first == {"action": "create", "face_id": "EMP-1", "version": 1, "flag": "red"}
    assert base64.b64decode(template["embedding"]) == face(1).vector
    assert (template["space"], template["quality"]) == (FACE, 0.9)


async def test_a_name_is_sent_in_dev_mode_only(app: FastAPI, registry: Registry) -> None:
    """The registration of the device decides."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="Ana"))
    for device_id, dev_mode in (("cam-dev", True), ("cam-door", False)):
        async with await device_client(app, registry, device_id, "lobby", dev_mode=dev_mode) as client:
            (change,) = (await sync(client))["changes"]
            assert change.get("name") == ("Ana" if dev_mode else None)
            assert ("name" in change) == dev_mode


async def test_create_update_and_delete_are_sent_once_each(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """The changes are those of seed 000: new identity, changed flag, deletion."""
    await registry.identities.enroll_many(
        [EnrollIdentity(f"visitor_{n}", (face(n),), sites=("lobby",)) for n in (3, 5)]
    )
    stand = await sync(cam_a)
    await registry.identities.delete("visitor_5")
    await registry.identities.enroll(EnrollIdentity("visitor_3", flag="red"))
    await registry.identities.enroll(EnrollIdentity("visitor_10", (face(10),), sites=("lobby",)))
    body = await sync(cam_a, since=stand["version"], epoch=stand["epoch"])
    assert changes_of(body) == [("delete", "visitor_5"), ("update", "visitor_3"), ("create", "visitor_10")]
    assert (body["reset"], body["changes"][1]["flag"]) == (False, "red")
    repeated = await sync(cam_a, since=body["version"], epoch=body["epoch"])
    assert (repeated["changes"], repeated["version"]) == ([], body["version"])


async def test_polling_by_time_misses_nothing(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """Changes around `sync_timestamp` may be sent twice."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("lobby",)))
    stand = await sync(cam_a)
    assert datetime.fromisoformat(stand["sync_timestamp"][:-1] + "+00:00") < datetime.now(timezone.utc)
    await registry.identities.delete("EMP-1")
    body = await sync(cam_a, since=stand["sync_timestamp"])
    assert (body["deleted"], body["reset"]) == (["EMP-1"], False)
    late = format_time(datetime.now(timezone.utc) + timedelta(seconds=5))
    assert (await sync(cam_a, since=late))["changes"] == []
    assert (await sync(cam_a, since="2020-01-01T00:00:00+01:00"))["deleted"] == ["EMP-1"]


async def test_update_is_never_sent_for_an_unknown_identity(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """Neither on later pages nor by time."""
    identities = registry.identities
    known, waiting = PollingDevice(cam_a, 1), PollingDevice(cam_a, 1)
    await identities.enroll(EnrollIdentity("EMP-0", (face(0),), sites=("lobby",)))
    await known.poll()
    by_time = await sync(cam_a)
    await identities.enroll_many(
        [EnrollIdentity(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in (1, 2, 3)]
    )
    for n in (2, 1, 0):
        await identities.enroll(EnrollIdentity(f"EMP-{n}", flag="red"))
    for device in (known, waiting):
        await device.poll()
        assert device.faces == await expected_at(registry, "lobby")
    assert known.actions["EMP-0"] == "update"
    assert set(waiting.actions.values()) == {"create"}
    body = await sync(cam_a, since=by_time["sync_timestamp"])
    assert changes_of(body) == [("create", f"EMP-{n}") for n in (3, 2, 1, 0)]


async def test_by_time_a_known_identity_is_updated(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """It was at the site before an identity that has changed since."""
    identities = registry.identities
    for n in (1, 2):
        await identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),), sites=("lobby",)))
    long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    await registry.mongo.db.identities.update_many({}, {"$set": {"updated_at": long_ago}})
    since = (await sync(cam_a))["sync_timestamp"]
    await identities.enroll(EnrollIdentity("EMP-1", flag="red"))
    await identities.enroll(EnrollIdentity("EMP-3", (face(3),), sites=("lobby",)))
    assert changes_of(await sync(cam_a, since=since)) == [("update", "EMP-1"), ("create", "EMP-3")]


async def test_a_time_in_the_future_starts_a_snapshot_sync(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """A wrong clock must not make a device miss anything."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("lobby",)))
    body = await sync(cam_a, since="2099-01-01T00:00:00Z")
    assert (body["reset"], changes_of(body)) == (True, [("create", "EMP-1")])


async def test_only_consented_and_requested_templates_are_sent(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """Consent is by modality, spaces by the query or the device's declaration."""
    walk = Template(GAIT, normalise([1.0, 2.0, 3.0, 4.0], 4))
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), walk), sites=("lobby",)))

    async def spaces(**requested: Any) -> list[str]:
        (change,) = (await sync(cam_a, **requested))["changes"]
        return [item["space"] for item in change["templates"]]

    assert sorted(await spaces()) == [FACE, GAIT]
    assert await spaces(spaces=GAIT) == [GAIT]
    assert sorted(await spaces(spaces=f"{GAIT},{FACE}")) == [FACE, GAIT]
    info = {"spaces": {FACE: {"dimension": 8}}}
    await registry.devices.record_reports(
        [DeviceReport.latest("cam-a", "info", info, datetime.now(timezone.utc))]
    )
    assert await spaces() == [FACE]
    assert "templates" not in (await sync(cam_a, vectors="false"))["changes"][0]
    await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": False}))
    assert await spaces() == []


@pytest.mark.parametrize("by_time", [False, True])
async def test_a_device_that_was_away_catches_up(
    cam_a: httpx.AsyncClient, registry: Registry, *, by_time: bool
) -> None:
    """Changes, deletions, restores, moves and consent arrive in pages of two."""
    identities = registry.identities
    await identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in range(8)])
    device = PollingDevice(cam_a, 2, by_time=by_time)
    await device.poll()
    assert device.faces == await expected_at(registry, "lobby")
    await identities.delete("EMP-1")
    await identities.delete("EMP-2")
    await identities.restore("EMP-2")
    await identities.delete("EMP-3")
    await identities.enroll(EnrollIdentity("EMP-3", (face(30),), sites=("lobby",)))
    await identities.enroll(EnrollIdentity("EMP-4", sites=("gate",)))
    await identities.enroll(EnrollIdentity("EMP-5", flag="red"))
    await identities.enroll(EnrollIdentity("EMP-6", consent={"face": False}))
    await identities.enroll(EnrollIdentity("EMP-9", (face(9),), sites=("gate",)))
    await identities.enroll(EnrollIdentity("EMP-9", sites=("gate", "lobby")))
    await device.poll()
    assert device.faces == await expected_at(registry, "lobby")
    assert (set(device.faces), device.resets) == ({f"EMP-{n}" for n in (0, 2, 3, 5, 6, 7, 9)}, 1)


async def test_another_history_and_purged_tombstones_start_a_snapshot_sync(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """By version and by time; a snapshot of many pages ends below the horizon too."""
    identities = registry.identities
    await identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),), sites=("lobby",)) for n in range(6)])
    by_version, by_time = PollingDevice(cam_a, 2), PollingDevice(cam_a, 100, by_time=True)
    for device in (by_version, by_time):
        await device.poll()
    await identities.delete("EMP-0")
    await identities.enroll(EnrollIdentity("EMP-9", (face(9),), sites=("lobby",)))
    await purge(registry, "EMP-0", "lobby")
    for device in (by_version, by_time):
        await device.poll()
        assert (device.resets, device.faces) == (2, await expected_at(registry, "lobby"))
    # One purge starts one snapshot sync, not two.
    await by_version.poll()
    assert by_version.resets == 2
    await registry.versions.begin_epoch()
    await by_version.poll()
    assert by_version.resets == 3
    ahead = await sync(cam_a, since=10**6)
    assert (ahead["reset"], len(ahead["changes"])) == (True, 6)


async def test_a_purge_at_another_site_starts_no_snapshot_sync(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """A site that never had the identity receives no removal of it."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("lobby",)))
    stand = await sync(cam_a)
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), sites=("gate",)))
    await registry.identities.delete("EMP-2")
    await purge(registry, "EMP-2", "gate")
    body = await sync(cam_a, since=stand["version"], epoch=stand["epoch"])
    assert (body["reset"], body["changes"]) == (False, [])


async def test_a_page_is_bounded_by_bytes_too(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """A larger `limit` does not matter: the answer has `more` and `next`."""
    # Long ids, since a thousand short ones with small vectors fit into one page.
    enrollments = [EnrollIdentity(f"EMP-{n:0120}", (face(n),), sites=("lobby",)) for n in range(1000)]
    await registry.identities.enroll_many(enrollments)
    answer = await cam_a.get(SYNC, params={"limit": 1000})
    body = answer.json()
    assert (body["more"], body["reset"], len(answer.content) < 400_000) == (True, True, True)
    device = PollingDevice(cam_a, 1000)
    await device.poll()
    assert (len(device.faces), device.resets) == (1000, 1)


# Several sites


async def test_a_device_sees_its_own_site_alone(
    cam_a: httpx.AsyncClient, cam_b: httpx.AsyncClient, registry: Registry, api: httpx.AsyncClient
) -> None:
    """It gets, confirms and visits no identity of another site."""
    await registry.identities.enroll(EnrollIdentity("EMP-A", (face(1),), sites=("lobby",)))
    await registry.identities.enroll(EnrollIdentity("EMP-B", (face(2),), sites=("gate",)))
    given = await sync(cam_b)
    tombstone = await registry.identities.delete("EMP-B")
    for requested in ({}, {"since": 1}):
        assert "EMP-B" not in (await cam_a.get(SYNC, params=requested)).text
    epoch = (await sync(cam_a))["epoch"]
    await cam_a.post("/api/edge/confirm", json={"epoch": epoch, "version": tombstone.version})
    shown = (await api.get("/api/v1/identities/EMP-B/confirmations")).json()
    assert (shown["confirmed"], shown["waiting"]) == ([], ["cam-b"])
    visit = {"face_id": "EMP-B", "timestamp": format_time(datetime.now(timezone.utc) - timedelta(hours=1))}
    reported = (await cam_a.post("/api/edge/visits", json={"visits": [visit]})).json()
    assert [item["code"] for item in reported["errors"]] == ["person-unknown"]
    assert changes_of(await sync(cam_b, since=given["version"])) == [("delete", "EMP-B")]


async def test_a_moved_identity_leaves_one_site_and_joins_the_other(
    cam_a: httpx.AsyncClient, cam_b: httpx.AsyncClient, registry: Registry
) -> None:
    """One site gets a delete, the other a create."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("lobby",)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    stands = [await sync(client) for client in (cam_a, cam_b)]
    await registry.identities.enroll(EnrollIdentity("EMP-1", sites=("gate",)))
    body = [
        await sync(client, since=stand["version"], epoch=stand["epoch"])
        for client, stand in zip((cam_a, cam_b), stands, strict=True)
    ]
    assert [changes_of(item) for item in body] == [[("delete", "EMP-1")], [("create", "EMP-1")]]
    assert body[1]["changes"][0]["templates"]
