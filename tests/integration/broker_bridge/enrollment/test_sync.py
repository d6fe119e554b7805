import itertools

from broker_bridge.bootstrap import Bridge, open_registry
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus, SyncApplied
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.settings import RegistrySettings
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, Peer, connected, event, face, running
from tests.waiting import until


async def test_an_enrollment_reaches_the_site_as_delta_and_head(peer: Peer, registry: Registry) -> None:
    """The delta continues the last head; the next head has the digest of its contents."""
    first = await peer.receive("sync_head")
    assert (first.version, first.people, first.spaces[SPACE].count) == (0, 0, 0)
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="One", flag="red"))
    delta = await peer.receive("sync_delta")
    assert (delta.epoch, delta.prev_version, delta.version, delta.removals) == (first.epoch, 0, 1, [])
    (upsert,) = delta.upserts
    assert (upsert.user_id, upsert.flag, upsert.display_name) == ("EMP-1", "red", None)
    head = await peer.receive("sync_head")
    assert head.version == 1
    assert head.spaces[SPACE].digest == Digest.of("EMP-1", SPACE, [t.vector for t in upsert.templates]).hex


async def test_a_deletion_is_a_removal_and_leaves_the_digest(peer: Peer, registry: Registry) -> None:
    """After enrolling two and deleting one, the head's digest is that of the other."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await registry.identities.delete("EMP-1")
    while True:
        delta = await peer.receive("sync_delta")
        if delta.version == 3:
            break
    assert [(r.user_id, r.version) for r in delta.removals] == [("EMP-1", 3)]
    while True:
        head = await peer.receive("sync_head")
        if head.version == 3:
            break
    assert head.spaces[SPACE].digest == Digest.of("EMP-2", SPACE, [face(2).vector]).hex


async def test_a_change_at_another_site_is_not_published_here(peer: Peer, registry: Registry) -> None:
    """The deltas of a site skip the versions of other sites' changes."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("FAR", (face(2),), sites=("far-away",)))
    await registry.identities.enroll(EnrollIdentity("EMP-3", (face(3),)))
    deltas = []
    while not deltas or deltas[-1].version < 3:
        deltas.append(await peer.receive("sync_delta"))
    user_ids = [u.user_id for delta in deltas for u in delta.upserts]
    assert user_ids == ["EMP-1", "EMP-3"]
    for before, after in itertools.pairwise(deltas):
        assert after.prev_version == before.version


async def test_pages_of_a_snapshot_sync_end_at_the_head(peer: Peer, registry: Registry) -> None:
    """The first page has `reset`; all pages together name every identity."""
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(25)])
    await registry.identities.delete("EMP-3")
    page = await peer.request_page(limit=10)
    assert (page.reset, page.done, page.from_version) == (True, False, 0)
    user_ids = [u.user_id for u in page.upserts]
    start = page.head_version
    while not page.done:
        page = await peer.request_page(page.to_version, page.epoch, limit=10, reset_head_version=start)
        assert not page.reset
        user_ids += [u.user_id for u in page.upserts]
    assert sorted(user_ids) == sorted(f"EMP-{n}" for n in range(25) if n != 3)
    assert page.to_version == page.head_version == 26
    next_page = await peer.request_page(26, page.epoch)
    assert (next_page.reset, next_page.done, next_page.upserts, next_page.removals) == (False, True, [], [])


async def test_one_request_has_as_many_pages_as_the_device_takes(peer: Peer, registry: Registry) -> None:
    """Pages follow each other under one request id; only the first has a time.

    A device that does not say how many it takes gets one.
    """
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(25)])
    first = await peer.request_page(limit=5, pages=3)
    second, third = await peer.receive("sync_page"), await peer.receive("sync_page")
    pages = [first, second, third]
    assert {page.request_id for page in pages} == {first.request_id}
    assert [page.from_version for page in pages] == [0, first.to_version, second.to_version]
    assert [page.more for page in pages] == [True, True, None]
    assert [page.at is None for page in pages] == [False, True, True]
    assert [len(page.upserts) for page in pages] == [5, 5, 5]
    head = first.head_version
    single = await peer.request_page(third.to_version, third.epoch, limit=5, reset_head_version=head)
    last = await peer.request_page(single.to_version, first.epoch, limit=5, reset_head_version=head, pages=8)
    assert (single.more, single.done, last.more, last.done) == (None, False, None, True)


async def test_a_device_of_another_history_or_a_future_version_gets_a_snapshot(
    peer: Peer, registry: Registry
) -> None:
    """Another epoch or a future version is answered with a snapshot sync."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    epoch = (await registry.versions.read()).epoch
    assert (await peer.request_page(1, "beef")).reset
    assert (await peer.request_page(99, epoch)).reset
    assert not (await peer.request_page(1, epoch)).reset


async def test_a_request_for_another_site_is_rejected(peer: Peer) -> None:
    """A request for another site gets a code and no identities."""
    page = await peer.request_page(site_id="elsewhere")
    assert page.error is not None
    assert (page.error.code, page.upserts) == ("site-mismatch", [])


async def test_a_request_may_omit_site_and_spaces(peer: Peer, registry: Registry) -> None:
    """Without site and spaces a device gets its own site with all templates."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("FAR", (face(2),), sites=("far-away",)))
    await peer.send("enrollment/request", b'{"request_id":"r1","epoch":null,"since_version":0,"limit":200}')
    page = await peer.receive("sync_page")
    assert [(u.user_id, len(u.templates)) for u in page.upserts] == [("EMP-1", 1)]


async def test_names_travel_in_pages_to_devices_in_dev_mode_only(
    bridge: Bridge, registry: Registry, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """The registry, not the device, decides which device is in dev mode."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="Sample Person"))
    async with connected(mosquitto, fresh_device) as peer:
        assert [u.display_name for u in (await peer.request_page()).upserts] == [None]
        await registry.mongo.db.devices.update_one({"_id": fresh_device.id}, {"$set": {"dev_mode": True}})
        assert [u.display_name for u in (await peer.request_page()).upserts] == ["Sample Person"]


async def test_where_consent_is_required_a_face_leaves_only_with_it(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """Pages and heads contain a face only while its consent is given."""
    settings = program.model_copy(update={"registry": RegistrySettings(consent="required")})
    strict = await open_registry(settings)
    async with connected(mosquitto, fresh_device) as peer, running(strict, settings):
        await peer.receive("sync_head")
        for consent, sent in ((None, []), ({"face": True}, [face(1).vector]), ({"face": False}, [])):
            await strict.identities.enroll(EnrollIdentity("EMP-1", (face(1),), consent=consent))
            (published,) = (await peer.receive("sync_delta")).upserts
            head = await peer.receive("sync_head")
            (paged,) = (await peer.request_page()).upserts
            assert [[template.vector for template in upsert.templates] for upsert in (published, paged)] == [
                sent,
                sent,
            ]
            assert sum(space.count for space in head.spaces.values()) == len(sent)
    await strict.close()


async def test_presence_and_confirmation_reach_the_registry(peer: Peer, registry: Registry) -> None:
    """Status, info and applied are recorded, and the version counts as confirmed."""
    now = event(1, "x")["timestamp"]
    history = await registry.versions.read()
    await peer.send("status", DeviceStatus(state="online", session="a1", at=now), retain=True)
    await peer.send(
        "info",
        DeviceInfo(site_id=peer.device.site, software="1.0", spaces={"gait:new-4": {"dimension": 4}}),
        retain=True,
    )
    applied = SyncApplied(epoch=history.epoch, version=7, spaces={}, duration_ms=3.5)
    await peer.send("enrollment/applied", applied, retain=True)

    async def recorded() -> bool:
        found = await registry.devices.get(peer.device.id)
        return found is not None and None not in (found.status, found.info, found.applied)

    await until(recorded)
    (device_version,) = await registry.devices.applied_versions([peer.device.site])
    assert device_version.confirms(history.epoch, 7)
    assert not device_version.confirms(history.epoch, 8)
    assert not device_version.confirms("beef", 7)
    assert (await registry.spaces.get("gait:new-4")).dimension == 4


async def test_a_new_worker_publishes_heads_of_what_it_finds(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """Changes made without a running bridge are in the first head of a new leader."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), face(2))))
    async with connected(mosquitto, fresh_device) as peer, running(registry, program):
        head = await peer.receive("sync_head")
        assert (head.version, head.spaces[SPACE].count) == (1, 2)


async def test_a_new_history_is_published_while_running(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """After a restore the next poll publishes a head of the new epoch."""
    often = program.bridge.model_copy(update={"poll_seconds": 0.1})
    settings = program.model_copy(update={"bridge": often})
    async with connected(mosquitto, fresh_device) as peer, running(registry, settings):
        first = await peer.receive("sync_head")
        history = await registry.versions.begin_epoch()
        while (head := await peer.receive("sync_head")).epoch == first.epoch:
            pass
        assert head.epoch == history.epoch
