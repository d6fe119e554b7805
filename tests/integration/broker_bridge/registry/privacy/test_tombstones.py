"""Tombstones are purged after their retention."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import SyncRequest
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.enrollment.sync_responder import needs_snapshot
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity, Template

MONTH = timedelta(days=30)


def face(seed: int) -> Template:
    return Template("face:test-8", normalise(np.random.default_rng(seed).standard_normal(8), 8))


async def deleted_at(registry: Registry, user_id: str, at: datetime) -> None:
    """Set the time of a deletion to `at`."""
    await registry.mongo.db.identities.update_one({"_id": user_id}, {"$set": {"deleted_at": at}})


async def user_ids(registry: Registry) -> list[str]:
    return [identity.user_id for identity in await registry.identities.page(deleted=True)]


def sync_request(epoch: str, since: int) -> SyncRequest:
    return SyncRequest(request_id="r-1", epoch=epoch, since_version=since)


async def test_tombstones_past_their_retention_are_purged(registry: Registry) -> None:
    """Templates go too; live identities and recent tombstones stay."""
    now = to_milliseconds(utc_now())
    for n in range(4):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),)))
    for n in (1, 2):
        await registry.identities.delete(f"EMP-{n}")
    await registry.erasures.erase("EMP-3", by="privacy-desk", now=now)
    for user_id in ("EMP-1", "EMP-3"):
        await deleted_at(registry, user_id, now - MONTH - timedelta(seconds=1))

    assert await registry.tombstones.purge(now, MONTH) == 2

    assert await user_ids(registry) == ["EMP-0", "EMP-2"]
    assert await registry.mongo.db.templates.distinct("user_id") == ["EMP-0", "EMP-2"]
    (entry,) = [e for e in await registry.audit.page() if e.what == "people.purged"]
    assert (entry.after, entry.at) == ({"count": 2}, now)
    assert await registry.tombstones.purge(now, MONTH) == 0


async def test_only_devices_that_missed_a_purged_removal_need_a_snapshot(registry: Registry) -> None:
    """Each site has its own horizon; a device at or above it continues."""
    now = to_milliseconds(utc_now())
    await registry.identities.enroll(EnrollIdentity("NORTH", (face(1),), sites=("north",)))
    await registry.identities.enroll(EnrollIdentity("STAYS", (face(2),)))
    deleted = await registry.identities.delete("NORTH")
    await deleted_at(registry, "NORTH", now - 2 * MONTH)
    await registry.tombstones.purge(now, MONTH)
    history = await registry.versions.read()
    assert (history.horizon_at("north"), history.horizon_at("south")) == (deleted.version, 0)
    assert (history.horizon, history.purged_until) == (deleted.version, now - 2 * MONTH)
    below, above = (
        sync_request(history.epoch, deleted.version - 1),
        sync_request(history.epoch, deleted.version),
    )
    assert needs_snapshot(below, history, "north")
    assert not needs_snapshot(above, history, "north")
    assert not needs_snapshot(below, history, "south")
    page = await registry.deltas.site_deltas("north", 0, ["face:test-8"], 10, 10**6, snapshot=True)
    assert (page.head_version, page.to_version) == (deleted.version, deleted.version)


async def test_a_purge_concerns_every_synced_site(registry: Registry) -> None:
    """Devices of a former site need a snapshot sync too."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("north",)))
    await registry.identities.enroll(EnrollIdentity("EMP-1", sites=("south",)))
    deleted = await registry.identities.delete("EMP-1")
    await registry.tombstones.purge(to_milliseconds(utc_now()) + MONTH, timedelta(0))
    history = await registry.versions.read()
    assert [history.horizon_at(site) for site in ("north", "south", "west")] == [deleted.version] * 2 + [0]


async def test_hundreds_are_purged_in_several_transactions(registry: Registry) -> None:
    """450 tombstones take three, each with an audit entry and the horizon."""
    enrollments = [EnrollIdentity(f"EMP-{n:03}", sites=("north",)) for n in range(450)]
    await registry.identities.enroll_many(enrollments)
    await registry.mongo.db.identities.update_many(
        {}, {"$set": {"deleted": True, "deleted_at": to_milliseconds(utc_now())}}
    )
    assert await registry.tombstones.purge(to_milliseconds(utc_now()) + MONTH, MONTH / 2) == 450
    assert await user_ids(registry) == []
    counts = [e.after and e.after["count"] for e in await registry.audit.page() if e.what == "people.purged"]
    assert sorted(counts) == [50, 200, 200]
    assert (await registry.versions.read()).horizon_at("north") == 450


async def test_a_purged_merge_cannot_be_undone(registry: Registry) -> None:
    """Superseded templates go with the tombstone; active ones stay."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", tuple(face(n) for n in range(1, 6))))
    await registry.identities.enroll(EnrollIdentity("EMP-2", tuple(face(n) for n in range(11, 16))))
    await registry.identity_merges.merge("EMP-1", "EMP-2")
    kept = (await registry.identities.templates_of(["EMP-2"]))["EMP-2"]
    assert await registry.mongo.db.templates.count_documents({"parked_by": "EMP-1"}) > 0
    await registry.tombstones.purge(to_milliseconds(utc_now()) + MONTH, MONTH / 2)
    template_ids = [found["_id"] async for found in registry.mongo.db.templates.find({})]
    assert set(template_ids) == {template.template_id for template in kept}
    with pytest.raises(ContractError, match="merge-impossible"):
        await registry.identity_merges.undo("EMP-1")


async def test_an_index_that_missed_a_purged_removal_is_built_again(registry: Registry) -> None:
    """It does not find a purged identity."""
    space = await registry.spaces.get("face:test-8")
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    index = registry.identity_indexes.for_space(space)
    _, nearest = await index.find_nearest(face(1).vector, 0.9)
    assert nearest is not None
    assert nearest.key == "EMP-1"
    await registry.identities.delete("EMP-1")
    await registry.tombstones.purge(to_milliseconds(utc_now()) + MONTH, MONTH / 2)
    assert (await index.find_nearest(face(1).vector, 0.9))[1] is None
    _, second_match = await index.find_nearest(face(2).vector, 0.9)
    assert second_match is not None
    assert second_match.key == "EMP-2"


async def test_an_identity_restored_meanwhile_is_not_purged(registry: Registry) -> None:
    """It has no tombstone any more."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.delete("EMP-1")
    await registry.identities.restore("EMP-1")
    assert await registry.tombstones.purge(to_milliseconds(utc_now()) + MONTH, MONTH / 2) == 0
    assert await user_ids(registry) == ["EMP-1"]
