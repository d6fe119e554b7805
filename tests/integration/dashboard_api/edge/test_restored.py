"""A polling device ends with the registry's faces after a backup was restored."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from broker_bridge.common.tasks import cancel_and_wait
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.sync.polling import EdgePolling
from tests.integration.dashboard_api.conftest import Clock, is_problem
from tests.integration.dashboard_api.edge.test_edge import PollingDevice, expected_at, face, sync
from tests.waiting import until

CONFIRM = "/api/edge/confirm"
SITE = ("lobby",)
COLLECTIONS = ("identities", "templates", "meta", "devices")
Dump = dict[str, list[dict[str, Any]]]


async def dump(registry: Registry) -> Dump:
    return {name: await registry.mongo.db[name].find().to_list(None) for name in COLLECTIONS}


async def restore(registry: Registry, backup: Dump) -> None:
    """Restore a dump as `mongorestore --drop` does, and tell no program of it."""
    for name in COLLECTIONS:
        await registry.mongo.db[name].delete_many({})
        if backup[name]:
            await registry.mongo.db[name].insert_many(backup[name])


async def test_the_api_notices_a_restore_by_itself(registry: Registry) -> None:
    """No device polls; an API that reads again does."""
    await enroll(registry, 1)
    backup = await dump(registry)
    await enroll(registry, 2)
    before = await registry.versions.read()
    watching = asyncio.create_task(registry.edge_polling.watch_history(0.01))
    polling: EdgePolling = registry.edge_polling

    async def has_seen() -> bool:
        seen = polling._guard._seen
        return seen is not None and seen.version == before.version

    async def has_begun() -> bool:
        return (await registry.versions.read()).epoch != before.epoch

    try:
        await until(has_seen)
        await restore(registry, backup)
        await until(has_begun)
    finally:
        await cancel_and_wait([watching])


def restart_api(registry: Registry) -> None:
    """Let the API forget what it has seen, as a new process has."""
    polling: EdgePolling = registry.edge_polling
    polling._guard._seen = None


async def enroll(registry: Registry, *numbers: int) -> None:
    for n in numbers:
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),), sites=SITE))


async def fork(registry: Registry, device: PollingDevice, *, later: int) -> None:
    """Take the device to version 7, restore 3, and make `later` changes."""
    await enroll(registry, 1, 2, 3)
    await device.poll()
    backup = await dump(registry)
    await enroll(registry, 4, 5, 6, 7)
    await device.poll()
    assert (await registry.versions.read()).version == 7
    await restore(registry, backup)
    if later:
        await registry.identities.delete("EMP-1")
        await enroll(registry, *range(11, 10 + later))


# The registry ends behind, at, and past the version of the device.
LATER = [0, 3, 4, 6]


@pytest.mark.parametrize(("later", "restarted"), [*((n, True) for n in LATER), (4, False), (6, False)])
async def test_a_device_of_a_lost_history_ends_with_the_registrys_faces(
    cam_a: httpx.AsyncClient, registry: Registry, later: int, restarted: bool
) -> None:
    """It learns of the deletion and of every new identity."""
    device = PollingDevice(cam_a, 2)
    await fork(registry, device, later=later)
    if restarted:
        restart_api(registry)
    epoch = device.since["epoch"]
    refused = await cam_a.post(CONFIRM, json={"epoch": epoch, "version": 7})
    is_problem(refused, 409, refused.json()["code"])
    assert refused.json()["code"] in {"version-ahead", "sync-epoch-changed"}
    await device.poll()
    assert (device.faces, device.resets) == (await expected_at(registry, "lobby"), 2)
    assert (await registry.versions.read()).epoch == device.since["epoch"] != epoch
    await device.poll()
    assert device.resets == 2


async def test_a_confirmation_after_a_restore_is_true(
    cam_a: httpx.AsyncClient, api: httpx.AsyncClient, registry: Registry
) -> None:
    """The deletion counts as confirmed after the device has applied it, not before."""
    device = PollingDevice(cam_a, 100)
    await fork(registry, device, later=6)
    restart_api(registry)
    path = "/api/v1/identities/EMP-1/confirmations"
    old = {"epoch": device.since["epoch"], "version": 9}
    await cam_a.post(CONFIRM, json=old)
    assert (await api.get(path)).json()["summary"] == "0 of 1 devices"
    await device.poll()
    assert "EMP-1" not in device.faces
    is_problem(await cam_a.post(CONFIRM, json=old), 409, "sync-epoch-changed")
    new = {"epoch": device.since["epoch"], "version": device.since["since"]}
    assert (await cam_a.post(CONFIRM, json=new)).status_code == 200
    assert (await api.get(path)).json()["summary"] == "1 of 1 devices"


@pytest.mark.parametrize("later", LATER)
async def test_a_client_that_sends_the_version_alone_ends_right(
    cam_a: httpx.AsyncClient, registry: Registry, later: int
) -> None:
    """Seed 002 has no epoch: the registry knows what it has given to the device."""
    device = PollingDevice(cam_a, 100)
    await fork(registry, device, later=later)
    restart_api(registry)
    device.since.pop("epoch")
    await device.poll()
    assert (device.faces, device.resets) == (await expected_at(registry, "lobby"), 2)


async def test_a_device_that_fails_before_it_commits_is_recognised_again(
    cam_a: httpx.AsyncClient, registry: Registry
) -> None:
    """It repeats its lost position, although the registry has given it others since."""
    device = PollingDevice(cam_a, 2)
    await fork(registry, device, later=4)
    restart_api(registry)
    lost = dict(device.since)
    assert (await sync(cam_a, **lost))["reset"]
    assert (await sync(cam_a, **lost))["reset"]
    await device.poll()
    assert device.faces == await expected_at(registry, "lobby")


async def test_one_device_begins_one_epoch_a_day(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """A corrupt or hostile device gets a snapshot each time, the others do not."""
    await enroll(registry, 1)
    given = await sync(cam_a)
    first = (await sync(cam_a, since=5, epoch=given["epoch"]))["epoch"]
    assert first != given["epoch"]
    ahead = (await registry.versions.read()).version + 1
    for version in (ahead, ahead + 1, 10**15, 2**62):
        body = await sync(cam_a, since=version, epoch=first)
        assert (body["reset"], body["epoch"]) == (True, first)


@pytest.mark.parametrize("claim", [{"since": 10**15}, {"since": 5}, {"since": 2**63 - 1, "epoch": "ab"}])
async def test_a_claim_without_evidence_begins_no_epoch(
    cam_a: httpx.AsyncClient, registry: Registry, claim: dict[str, Any]
) -> None:
    """Far ahead, or without the epoch that a device learns with its first answer."""
    await enroll(registry, 1)
    given = await sync(cam_a)
    body = await sync(cam_a, **claim)
    assert (body["reset"], body["epoch"]) == (True, given["epoch"])


async def test_an_answer_that_was_lost_is_given_again(cam_a: httpx.AsyncClient, registry: Registry) -> None:
    """A device that repeats an earlier position is no sign of a restored registry."""
    await enroll(registry, 1)
    given = await sync(cam_a)
    for n in range(2, 30):
        await enroll(registry, n)
        body = await sync(cam_a, since=given["version"], epoch=given["epoch"])
        assert (body["reset"], len(body["changes"])) == (False, n - 1)
    again = await sync(cam_a, since=body["version"], epoch=given["epoch"])
    assert (again["reset"], again["changes"]) == (False, [])
    # It stood at a later position since: a step back, and a snapshot for this device alone.
    back = await sync(cam_a, since=given["version"], epoch=given["epoch"])
    assert (back["reset"], back["epoch"]) == (True, given["epoch"])


async def test_a_device_that_continues_by_time_gets_a_snapshot(
    cam_a: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """The restored registry knows of no answer of that time."""
    device = PollingDevice(cam_a, 100, by_time=True)
    await enroll(registry, 1, 2)
    await device.poll()
    backup = await dump(registry)
    clock.now += timedelta(hours=1)
    await enroll(registry, 3)
    await device.poll()
    resets = device.resets
    await restore(registry, backup)
    restart_api(registry)
    await enroll(registry, 4)
    await device.poll()
    assert (device.faces, device.resets) == (await expected_at(registry, "lobby"), resets + 1)
