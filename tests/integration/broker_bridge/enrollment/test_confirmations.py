"""A device confirms a version by the templates that it has."""

import pytest

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import SpaceDigest, SyncApplied
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from tests.integration.broker_bridge.support import SPACE, Peer, face
from tests.waiting import until

NONE = SpaceDigest(count=0, digest="0" * 16)
OTHER = SpaceDigest(count=1, digest="00000000000000ff")


def digest_of(user_id: str, seed: int) -> SpaceDigest:
    digest = Digest.of(user_id, SPACE, [face(seed).vector])
    return SpaceDigest(count=digest.count, digest=digest.hex)


async def report(peer: Peer, epoch: str, version: int, space: SpaceDigest) -> None:
    applied = SyncApplied(epoch=epoch, version=version, spaces={SPACE: space}, duration_ms=1.0)
    await peer.send("enrollment/applied", applied, retain=True)


async def confirmed(peer: Peer, registry: Registry, epoch: str, version: int) -> bool:
    found = await registry.devices.applied_versions([peer.device.site])
    return any(device.confirms(epoch, version) for device in found)


async def recorded(peer: Peer, registry: Registry, version: int) -> None:
    async def is_recorded() -> bool:
        found = await registry.devices.applied_versions([peer.device.site])
        return [device.version for device in found] == [version]

    await until(is_recorded)


async def test_other_templates_confirm_nothing(peer: Peer, registry: Registry) -> None:
    """The same device confirms once it has the templates of the version."""
    await registry.devices.register(peer.device.id, peer.device.site)
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.delete("EMP-1")
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    epoch = (await registry.versions.read()).epoch
    for wrong in (OTHER, digest_of("EMP-1", 1), NONE):
        await report(peer, epoch, 3, wrong)
        await recorded(peer, registry, 3)
        assert not await confirmed(peer, registry, epoch, 2)
    await report(peer, epoch, 3, digest_of("EMP-2", 2))

    async def has_confirmed() -> bool:
        return await confirmed(peer, registry, epoch, 3)

    await until(has_confirmed)


async def test_a_report_ahead_of_the_registry_begins_an_epoch(peer: Peer, registry: Registry) -> None:
    """A registered device has a version that the restored registry lacks."""
    await registry.devices.register(peer.device.id, peer.device.site)
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    before = await registry.versions.read()
    await report(peer, before.epoch, 7, OTHER)
    while (head := await peer.receive("sync_head")).epoch == before.epoch:
        pass
    history = await registry.versions.read()
    assert (head.epoch, head.version) == (history.epoch, history.version)
    assert not await confirmed(peer, registry, history.epoch, 1)
    # The same device again, with the version that it has just learned of: it gets no other epoch.
    await report(peer, history.epoch, history.version, digest_of("EMP-1", 1))

    async def has_confirmed() -> bool:
        return await confirmed(peer, registry, history.epoch, 1)

    await until(has_confirmed)


@pytest.mark.parametrize("version", [10**15, 2**62])
async def test_an_absurd_version_begins_no_epoch(peer: Peer, registry: Registry, version: int) -> None:
    await registry.devices.register(peer.device.id, peer.device.site)
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    before = await registry.versions.read()
    await report(peer, before.epoch, version, OTHER)
    await report(peer, before.epoch, 1, digest_of("EMP-1", 1))

    async def has_confirmed() -> bool:
        return await confirmed(peer, registry, before.epoch, 1)

    await until(has_confirmed)
    assert (await registry.versions.read()).epoch == before.epoch
