"""The registry's side of the property tests: real code on a real mongod; what it publishes is caught."""

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

from .sync_camera import Place

Meanwhile = Callable[[], Awaitable[None]]
Backup = dict[str, list[Document]]


async def prepare(registry: Registry, places: Sequence[Place]) -> None:
    """Spaces, sites and devices, which stay from example to example."""
    for place in places:
        for space, dimension in place.spaces.items():
            await registry.spaces.ensure(EmbeddingSpace(space, dimension))
        await registry.devices.register(place.device_id, place.site, dev_mode=place.dev_mode)


async def empty(registry: Registry) -> None:
    """Nobody, and a history that begins."""
    database = registry.mongo.db
    for collection in ("identities", "templates", "audit"):
        await database[collection].delete_many({})
    await database.meta.replace_one({"_id": "versions"}, {"epoch": "e0", "version": 0, "horizon": 0})


async def back_up(registry: Registry) -> Backup:
    """Everything that a dump of the database would hold of people."""
    database = registry.mongo.db
    queries = {"identities": {}, "templates": {}, "meta": {"_id": "versions"}}
    backup: Backup = {}
    for name, query in queries.items():
        backup[name] = [found async for found in database[name].find(query)]
    return backup


async def bring_back(registry: Registry, backup: Backup) -> None:
    """An operator restores a dump and begins an epoch; nobody looks in between."""

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
    """Forget the first `oldest` of the deleted, and whoever was deleted in the same millisecond."""
    found = registry.mongo.db.identities.find({"deleted": True}).sort("deleted_at", 1).limit(oldest)
    moments = [one["deleted_at"].replace(tzinfo=timezone.utc) async for one in found]
    if moments:
        await registry.tombstones.purge(moments[-1] + timedelta(milliseconds=1), timedelta(0))


class InterruptedChanges:
    """The registry's changes, before one reading of which something else may happen: set `meanwhile`."""

    def __init__(self, registry: Registry) -> None:
        self._changes = registry.deltas
        self.meanwhile: Meanwhile | None = None

    async def site_deltas(self, *args: Any, **options: Any) -> DeltaPage:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            await meanwhile()
        return await self._changes.site_deltas(*args, **options)


class Bridge:
    """One bridge worker that answers, and the publisher, whose every look at the registry is a step."""

    def __init__(
        self, registry: Registry, loop: asyncio.AbstractEventLoop, deliver: Callable[..., None]
    ) -> None:
        self._registry = registry
        self._loop = loop
        self._deliver = deliver
        self._changes = InterruptedChanges(registry)
        interrupted = replace(registry, deltas=self._changes)  # type: ignore[arg-type]
        self._answers = SyncResponder(interrupted, self._publish, BridgeSettings())
        self.is_connected = True
        self._start()

    def _start(self) -> None:
        self._publisher = SteppedPublisher(self._registry, self._publish, poll_seconds=3600)
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
        """Another process takes over: its ledger is counted anew."""
        self._stop()
        self._start()

    def reconnect(self) -> None:
        self.is_connected = True
        self._publisher.forget_heads()

    def look(self) -> None:
        """The publisher looks for changes until there are none."""
        self._publisher.wake()
        self._loop.run_until_complete(self._publisher.is_idle(self._running))

    def answer(self, device_id: str, request: SyncRequest, meanwhile: Meanwhile | None = None) -> SyncPage:
        """The page for a request; `meanwhile` happens after the bridge has begun to look."""
        self._changes.meanwhile = meanwhile
        answer = self._loop.run_until_complete(self._answers.answer(device_id, request))
        # Nothing was read: the page was there already.
        self._changes.meanwhile, meanwhile = None, self._changes.meanwhile
        if meanwhile:
            self._loop.run_until_complete(meanwhile())
        return channels.SYNC_PAGE.decode(answer.to_json())


class SteppedPublisher(DeltaPublisher):
    """Says when it has nothing to do but to wait."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle = asyncio.Event()

    async def _wait(self) -> None:
        if not self._changed.is_set():
            self._idle.set()
        await self._changed.wait()
        self._changed.clear()

    async def is_idle(self, running: "asyncio.Task[None]") -> None:
        """Return when it waits; raises what ended it."""
        self._idle.clear()
        waiting = asyncio.ensure_future(self._idle.wait())
        await asyncio.wait([waiting, running], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        if not waiting.done():
            raise AssertionError("the publisher has found no end for 30 s")
