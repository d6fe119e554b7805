"""Check that sync pages are read once for many devices, ahead, and never outdated."""

import asyncio
from collections import Counter

import pytest

from broker_bridge.contract.messages import SyncPage, SyncRequest
from broker_bridge.enrollment.page_reader import PageReader
from broker_bridge.enrollment.sync_pages import PagePosition
from broker_bridge.enrollment.sync_responder import SyncResponder
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.settings import BridgeProgram
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, face
from tests.waiting import until


async def unused(*_: object, **__: str) -> bool:
    raise AssertionError("no message is published in these tests")


async def enroll(registry: Registry, count: int) -> int:
    done = await registry.identities.enroll_many(
        [EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(count)]
    )
    return done[-1].version


async def request_page(
    responder: SyncResponder,
    device: FreshDevice,
    since: int = 0,
    epoch: str | None = None,
    head: int | None = None,
) -> SyncPage:
    request = SyncRequest(
        request_id="r", site_id=device.site, epoch=epoch, since_version=since, limit=10, spaces=[SPACE],
        reset_head_version=head,
    )  # fmt: skip
    return SyncPage.model_validate_json((await responder.answer(device.id, request)).to_json())


@pytest.fixture
def responder(registry: Registry, program: BridgeProgram) -> SyncResponder:
    return SyncResponder(registry, unused, program.bridge)


async def test_concurrent_snapshot_syncs_share_one_read(registry: Registry) -> None:
    """A hundred requests at the same time read one block."""
    await enroll(registry, 25)
    counters: Counter[str] = Counter()
    pages = PageReader(registry.deltas, counters)
    history = await registry.versions.read()
    position = PagePosition.start("lobby", [SPACE], 10, with_names=False)
    found = await asyncio.gather(*(pages.read_page(position, history) for _ in range(100)))
    assert counters["blocks_read"] == 1
    assert len({page.entries for page in found}) == 1
    await pages.close()


async def test_a_change_during_a_snapshot_sync_is_in_its_later_pages(
    responder: SyncResponder, registry: Registry, fresh_device: FreshDevice
) -> None:
    """An identity of the first page has its tombstone in the last, despite read-ahead."""
    await enroll(registry, 25)
    page = first = await request_page(responder, fresh_device)
    await registry.identities.delete("EMP-3")
    removed: list[str] = []
    while page.to_version < 26:
        page = await request_page(responder, fresh_device, page.to_version, page.epoch, first.head_version)
        removed += [removal.user_id for removal in page.removals]
    assert removed == ["EMP-3"]


async def test_snapshot_syncs_from_different_heads_get_different_tombstones(
    responder: SyncResponder, registry: Registry, fresh_device: FreshDevice
) -> None:
    """A sync that starts after a deletion gets no tombstone; an earlier one does."""
    await enroll(registry, 25)
    first = await request_page(responder, fresh_device)
    await registry.identities.delete("EMP-3")
    second = await request_page(responder, fresh_device)
    assert "EMP-3" not in {upsert.user_id for upsert in second.upserts}
    for first_page, expected in ((second, []), (first, ["EMP-3"])):
        page, removed = first_page, []
        while not page.done:
            page = await request_page(
                responder, fresh_device, page.to_version, page.epoch, first_page.head_version
            )
            removed += [removal.user_id for removal in page.removals]
        assert removed == expected


async def test_a_deleted_identity_is_in_no_later_answer(
    responder: SyncResponder, registry: Registry, fresh_device: FreshDevice
) -> None:
    """Cached pages belong to one state of the registry."""
    await enroll(registry, 5)
    assert len((await request_page(responder, fresh_device)).upserts) == 5
    await registry.identities.delete("EMP-3")
    assert [upsert.user_id for upsert in (await request_page(responder, fresh_device)).upserts] == [
        "EMP-0", "EMP-1", "EMP-2", "EMP-4",
    ]  # fmt: skip


async def test_an_idle_cache_is_cleared(registry: Registry) -> None:
    """After the idle time the bridge's memory contains no faces."""
    await enroll(registry, 5)
    pages = PageReader(registry.deltas, Counter(), idle_seconds=0.05)
    history = await registry.versions.read()
    position = PagePosition.start("lobby", [SPACE], 10, with_names=False)
    await pages.read_page(position, history)
    assert pages.has(position, history)

    async def forgotten() -> bool:
        return not pages.has(position, history)

    await until(forgotten)


async def test_the_next_block_is_read_ahead(
    responder: SyncResponder, registry: Registry, fresh_device: FreshDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that requests page after page waits for the registry only once."""
    monkeypatch.setattr("broker_bridge.enrollment.page_reader._BLOCK_IDENTITIES", 20)
    await enroll(registry, 50)
    page = first = await request_page(responder, fresh_device)

    async def read() -> bool:
        return responder.counters["blocks_read"] == 2

    await until(read)
    upserts = len(first.upserts)
    while not page.done:
        page = await request_page(responder, fresh_device, page.to_version, page.epoch, first.head_version)
        upserts += len(page.upserts)
    assert upserts == 50
    assert responder.counters["blocks_read"] == 3
