"""A registry that was restored begins an epoch once, and only if history was lost."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker_bridge.registry import Registry
from broker_bridge.registry.mongo.versions import EPOCH_STEP, History
from broker_bridge.registry.sync.history_guard import HistoryGuard


async def change(registry: Registry, times: int, size: int = 1) -> None:
    """Commit `times` transactions of `size` versions each."""
    for _ in range(times):
        await registry.mongo.transact(lambda session: registry.versions.take(session, size))


async def set_back(registry: Registry, counter: dict[str, Any]) -> None:
    await registry.mongo.db.meta.replace_one({"_id": "versions"}, counter)


async def counter_of(registry: Registry) -> dict[str, Any]:
    found: dict[str, Any] = await registry.mongo.db.meta.find_one({"_id": "versions"})
    return found


@pytest.mark.parametrize("later", [0, 1, 4, 5, 40])
async def test_a_program_that_has_seen_more_begins_an_epoch(registry: Registry, later: int) -> None:
    """The registry is behind it, at its version, or past it."""
    await change(registry, 3)
    backup = await counter_of(registry)
    await change(registry, 4)
    guards = [HistoryGuard(registry.versions) for _ in range(2)]
    seen = [await guard.read() for guard in guards]
    await set_back(registry, backup)
    await change(registry, later)
    begun = await asyncio.gather(*(guard.read() for guard in guards))
    assert begun[0] == begun[1] == await registry.versions.read()
    assert begun[0].epoch != seen[0].epoch
    # Past every version that a device of either history may have.
    assert begun[0].version == max(3 + later, 7) + EPOCH_STEP
    assert not begun[0].tells_since("lobby", 3 + later)
    assert begun[0].tells_since("lobby", begun[0].version)
    assert await guards[0].read() == begun[0]


async def test_a_history_that_goes_on_begins_no_epoch(registry: Registry) -> None:
    """With bulk changes, without changes, and past the marks that are kept."""
    guard = HistoryGuard(registry.versions)
    first = await guard.read()
    for count in (1, 0, 70):
        await change(registry, count)
        await change(registry, 2, size=20)
        history = await guard.read()
        assert (history.epoch, len(history.marks) <= 64) == (first.epoch, True)


async def test_a_read_that_is_behind_begins_no_epoch(registry: Registry) -> None:
    """After a failover a read may be older than one before."""
    await change(registry, 2)
    earlier = await registry.versions.read()
    await change(registry, 2)
    guard = HistoryGuard(registry.versions)
    newest = await guard.read()
    assert await guard.check(earlier) == newest
    assert await guard.read() == newest


async def test_a_counter_without_marks_is_compared_by_version(registry: Registry) -> None:
    """The registry of an earlier release has none until its next change."""
    await set_back(registry, {"epoch": "e0", "version": 5, "horizon": 0})
    guard = HistoryGuard(registry.versions)
    await guard.read()
    await change(registry, 1)
    assert (await guard.read()).epoch == "e0"
    await set_back(registry, {"epoch": "e0", "version": 4, "horizon": 0})
    assert (await guard.read()).epoch != "e0"


@pytest.mark.parametrize(
    ("version", "is_believed"), [(4, True), (EPOCH_STEP, True), (EPOCH_STEP + 5, False), (10**15, False)]
)
async def test_a_device_is_believed_once_a_day(registry: Registry, version: int, is_believed: bool) -> None:
    """Not if its version is absurd, nor for another epoch."""
    await change(registry, 3)
    history = await registry.versions.read()
    assert await registry.versions.replace_claimed("cam-1", "ff", version) is None
    begun = await registry.versions.replace_claimed("cam-1", history.epoch, version)
    assert (begun is not None) == is_believed
    now = await registry.versions.read()
    assert await registry.versions.replace_claimed("cam-1", now.epoch, now.version + 1) is None or not begun
    if begun:
        assert begun.version > version
        assert await registry.versions.replace_claimed("cam-2", now.epoch, now.version + 1) is not None


async def test_a_bulk_transaction_of_another_history_is_recognised() -> None:
    """The version that was seen lies within a transaction of the new history."""
    seen = History("e", 7, 0, marks={3: "a", 7: "b"})
    assert not History("e", 9, 0, marks={3: "a", 9: "c"}).includes(seen)
    assert History("e", 9, 0, marks={3: "a", 7: "b", 9: "c"}).includes(seen)
    assert History("e", 90, 0, marks={80: "a", 90: "b"}).includes(seen)
    assert replace(seen, epoch="f").includes(seen)
