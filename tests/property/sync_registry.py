"""Run the registry's side: real code on a real mongod, its messages caught."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import SyncPage, SyncRequest
from broker_bridge.contract.wire import WireModel
from broker_bridge.enrollment.publisher import DeltaPublisher
from broker_bridge.enrollment.sync_responder import SyncResponder
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import DeltaPage
from broker_bridge.registry.mongo.client import Document
from broker_bridge.settings import BridgeSettings

from .sync_camera import DeviceSetup

Interruption = Callable[[], Awaitable[None]]
Backup = dict[str, list[Document]]


async def prepare(registry: Registry, setups: Sequence[DeviceSetup]) -> None:
    """Create the spaces, sites and devices that all examples share."""
    for setup in setups:
        for space, dimension in setup.spaces.items():
            await registry.spaces.ensure(EmbeddingSpace(space, dimension))
        await registry.devices.register(setup.device_id, setup.site, dev_mode=setup.dev_mode)


async def empty(registry: Registry) -> None:
    """Delete all identities and reset the history."""
    database = registry.mongo.db
    for collection in ("identities", "templates", "audit"):
        await database[collection].delete_many({})
    await database.meta.replace_one({"_id": "versions"}, {"epoch": "e0", "version": 0, "horizon": 0})


async def back_up(registry: Registry) -> Backup:
    """Return the documents of identities that a database dump contains."""
    database = registry.mongo.db
    queries = {"identities": {}, "templates": {}, "meta": {"_id": "versions"}}
    backup: Backup = {}
    for name, query in queries.items():
        backup[name] = [found async for found in database[name].find(query)]
    return backup


async def restore_backup(registry: Registry, backup: Backup) -> None:
    """Restore a dump and begin an epoch, in one step."""

    async def work(session: Any) -> None:
        for name in ("identities", "templates"):
            await registry.mongo.db[name].delete_many({}, session=session)
            if backup[name]:
                await registry.mongo.db[name].insert_many(backup[name], session=session)
        history = backup["meta"][0]
        await registry.mongo.db.meta.replace_one({"_id": "versions"}, history, session=session)

    await registry.mongo.transact(work)
    await registry.versions.begin_epoch()


async def purge(registry: Registry, oldest: int) -> None:
    """Purge the first `oldest` tombstones, and those of the same millisecond."""
    found = registry.mongo.db.identities.find({"deleted": True}).sort("deleted_at", 1).limit(oldest)
    moments = [document["deleted_at"].replace(tzinfo=timezone.utc) async for document in found]
    if moments:
        await registry.tombstones.purge(moments[-1] + timedelta(milliseconds=1), timedelta(0))


class InterruptedDeltas:
    """The registry's deltas; `interruption` runs once before the next read."""

    def __init__(self, registry: Registry) -> None:
        self._changes = registry.deltas
        self.interruption: Interruption | None = None

    async def site_deltas(self, *args: Any, **options: Any) -> DeltaPage:
        interruption, self.interruption = self.interruption, None
        if interruption:
            await interruption()
        return await self._changes.site_deltas(*args, **options)


class Bridge:
    """Run a bridge worker with a publisher that reads the registry in steps."""

    def __init__(
        self, registry: Registry, loop: asyncio.AbstractEventLoop, deliver: Callable[..., None]
    ) -> None:
        self._registry = registry
        self._loop = loop
        self._deliver = deliver
        self._changes = InterruptedDeltas(registry)
        interrupted = replace(registry, deltas=self._changes)  # type: ignore[arg-type]
        self._answers = SyncResponder(interrupted, self._publish, BridgeSettings())
        self.is_connected = True
        self._start()

    def _start(self) -> None:
        self._publisher = SteppedPublisher(self._registry, self._publish, poll_seconds=3600)
        self.judge = self._publisher.judge
        self._running = self._loop.create_task(self._publisher.publish_changes())

    def _stop(self) -> None:
        self._running.cancel()
        self._loop.run_until_complete(asyncio.wait([self._running]))

    close = _stop

    async def _publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
        if self.is_connected:
            self._deliver(channel, channel.decode(message.to_json()), **ids)
        return self.is_connected

    def restart(self) -> None:
        """Replace the publisher by another process with a new ledger."""
        self._stop()
        self._start()

    def reconnect(self) -> None:
        self.is_connected = True
        self._publisher.forget_heads()

    def publish_changes(self) -> None:
        """Let the publisher read changes until there are none."""
        self._publisher.wake()
        self._loop.run_until_complete(self._publisher.is_idle(self._running))

    def answer(
        self, device_id: str, request: SyncRequest, interruption: Interruption | None = None
    ) -> SyncPage:
        """Return the page for a request; `meanwhile` runs before the read."""
        self._changes.interruption = interruption
        answer = self._loop.run_until_complete(self._answers.answer(device_id, request))
        # A cached page needs no read: run the interruption now.
        self._changes.interruption, interruption = None, self._changes.interruption
        if interruption:
            self._loop.run_until_complete(interruption())
        return channels.SYNC_PAGE.decode(answer.to_json())


class SteppedPublisher(DeltaPublisher):
    """A publisher that signals when it waits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle = asyncio.Event()

    async def _wait(self) -> None:
        if not self._changed.is_set():
            self._idle.set()
        await self._changed.wait()
        self._changed.clear()

    async def is_idle(self, running: "asyncio.Task[None]") -> None:
        """Return when it waits; raise the error that ended it."""
        self._idle.clear()
        waiting = asyncio.ensure_future(self._idle.wait())
        await asyncio.wait([waiting, running], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        if not waiting.done():
            raise AssertionError("the publisher is still busy after 30 s")
