"""Pages that are read ahead and shared: one reading for many devices, no old state for a new request."""

import asyncio
from collections import Counter

import pytest

from broker_bridge.contract.messages import SyncPage, SyncRequest
from broker_bridge.enrollment.sync_pages import PagePosition, SyncPages
from broker_bridge.enrollment.sync_responder import SyncResponder
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.settings import BridgeProgram
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, face
from tests.waiting import until


async def unused(*_: object, **__: str) -> bool:
    raise AssertionError("nothing is published here")


async def enrolled(registry: Registry, people: int) -> int:
    done = await registry.identities.enroll_many(
        [EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(people)]
    )
    return done[-1].version


async def ask(
    answers: SyncResponder,
    device: FreshDevice,
    since: int = 0,
    epoch: str | None = None,
    head: int | None = None,
) -> SyncPage:
    request = SyncRequest(
        request_id="r", site_id=device.site, epoch=epoch, since_version=since, limit=10, spaces=[SPACE],
        reset_head_version=head,
    )  # fmt: skip
    return SyncPage.model_validate_json((await answers.answer(device.id, request)).to_json())


@pytest.fixture
def answers(registry: Registry, program: BridgeProgram) -> SyncResponder:
    return SyncResponder(registry, unused, program.bridge)


async def test_devices_that_start_over_together_cost_one_reading(registry: Registry) -> None:
    """A hundred of them ask in the same instant."""
    await enrolled(registry, 25)
    counters: Counter[str] = Counter()
    pages = SyncPages(registry.deltas, counters)
    history = await registry.versions.read()
    place = PagePosition.start("lobby", [SPACE], 10, with_names=False)
    found = await asyncio.gather(*(pages.find(place, history) for _ in range(100)))
    assert counters["blocks_read"] == 1
    assert len({page.told for page in found}) == 1
    await pages.close()


async def test_a_change_during_a_reset_is_told_in_its_later_pages(
    answers: SyncResponder, registry: Registry, fresh_device: FreshDevice
) -> None:
    """Although the bridge has read on: the tombstone of somebody who was already told comes at the end."""
    await enrolled(registry, 25)
    page = first = await ask(answers, fresh_device)
    await registry.identities.delete("EMP-3")
    removed: list[str] = []
    while page.to_version < 26:
        page = await ask(answers, fresh_device, page.to_version, page.epoch, first.head_version)
        removed += [one.user_id for one in page.removals]
    assert removed == ["EMP-3"]


async def test_resets_that_began_at_different_heads_hear_of_different_tombstones(
    answers: SyncResponder, registry: Registry, fresh_device: FreshDevice
) -> None:
    """A second device starts over after a deletion: its pages, without the tombstone, are not the first's."""
    await enrolled(registry, 25)
    first = await ask(answers, fresh_device)
    await registry.identities.delete("EMP-3")
    second = await ask(answers, fresh_device)
    assert "EMP-3" not in {one.user_id for one in second.upserts}
    for begun, expected in ((second, []), (first, ["EMP-3"])):
        page, removed = begun, []
        while not page.done:
            page = await ask(answers, fresh_device, page.to_version, page.epoch, begun.head_version)
            removed += [one.user_id for one in page.removals]
        assert removed == expected


async def test_who_was_deleted_is_not_told_to_anybody_who_asks_after_that(
    answers: SyncResponder, registry: Registry, fresh_device: FreshDevice
) -> None:
    """Pages that are kept belong to one state of the registry."""
    await enrolled(registry, 5)
    assert len((await ask(answers, fresh_device)).upserts) == 5
    await registry.identities.delete("EMP-3")
    assert [one.user_id for one in (await ask(answers, fresh_device)).upserts] == [
        "EMP-0", "EMP-1", "EMP-2", "EMP-4",
    ]  # fmt: skip


async def test_faces_are_not_kept_for_nothing(registry: Registry) -> None:
    """When nobody has asked for a while, the bridge's memory holds none."""
    await enrolled(registry, 5)
    pages = SyncPages(registry.deltas, Counter(), kept_seconds=0.05)
    history = await registry.versions.read()
    place = PagePosition.start("lobby", [SPACE], 10, with_names=False)
    await pages.find(place, history)
    assert pages.keeps(place, history)

    async def forgotten() -> bool:
        return not pages.keeps(place, history)

    await until(forgotten)


async def test_the_next_block_is_read_while_this_one_is_told(
    answers: SyncResponder, registry: Registry, fresh_device: FreshDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever asks page after page waits for the registry once."""
    monkeypatch.setattr("broker_bridge.enrollment.sync_pages._BLOCK_PEOPLE", 20)
    await enrolled(registry, 50)
    page = first = await ask(answers, fresh_device)

    async def read() -> bool:
        return answers.counters["blocks_read"] == 2

    await until(read)
    people = len(first.upserts)
    while not page.done:
        page = await ask(answers, fresh_device, page.to_version, page.epoch, first.head_version)
        people += len(page.upserts)
    assert people == 50
    assert answers.counters["blocks_read"] == 3
