"""Publishes each site's head and deltas. One process at a time: the holder of the lease.

The version is the cursor; the change stream only wakes it, and should that be silent a poll does.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from broker_bridge.change_streams import wake_on
from broker_bridge.contract import channels
from broker_bridge.contract.messages import SyncDelta
from broker_bridge.contract.wire import MAX_PAGE_BYTES
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.sites import Site
from broker_bridge.registry.identities.model import IdentityDelta
from broker_bridge.registry.identities.wire_size import template_bytes
from broker_bridge.registry.mongo.versions import History

from .heads import HeadLedger, select_affected_sites
from .sync_responder import told

_log = logging.getLogger(__name__)

_CHANGES_AT_ONCE = 200
_RETRY_SECONDS = 1.0
# Beside its templates a person takes at most about this much of a delta, which has no names.
_PERSON_BYTES = 320


class DeltaPublisher:
    """Follows the registry by version and tells every site."""

    def __init__(self, registry: Registry, publish: Publish, poll_seconds: float) -> None:
        self._registry = registry
        self._publish = publish
        self._poll_seconds = poll_seconds
        self._changed = asyncio.Event()
        self._told_heads: dict[str, bytes] = {}
        self.counters: Counter[str] = Counter()

    def wake(self) -> None:
        """Look for changes now."""
        self._changed.set()

    def forget_heads(self) -> None:
        """Publish every head again: after a reconnect the broker may hold none."""
        self._told_heads.clear()
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled. Whatever fails is begun again from the registry."""
        while True:
            try:
                await self._follow()
            except RegistryError as error:
                self.counters["restarts"] += 1
                _log.warning("the publisher starts over: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)

    async def watch(self) -> None:
        """Wake the publisher at every change of what a head or a delta tells, until cancelled."""
        await wake_on(self._registry.deltas.watch, self.wake, self.counters)

    async def _follow(self) -> None:
        history, people = await self._registry.deltas.all_identities()
        ledger = HeadLedger(people)
        cursor = history.version
        while True:
            sites = await self._registry.sites.all()
            await self._tell_heads(ledger, history, sites)
            await self._wait()
            now, changed = await self._registry.deltas.deltas_after(cursor, _CHANGES_AT_ONCE)
            if now.epoch != history.epoch or now.version < cursor:
                _log.warning("the registry has begun another history: every device takes a full snapshot")
                return
            if now.horizon > cursor:
                _log.warning("removals were purged before they were told: everybody is counted anew")
                return
            history = now
            if changed:
                await self._tell_changes(ledger, history, sites, changed)
                cursor = changed[-1].identity.version
                if len(changed) == _CHANGES_AT_ONCE:
                    self.wake()

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), self._poll_seconds)
        except asyncio.TimeoutError:
            self.counters["polls"] += 1
        self._changed.clear()

    async def _tell_heads(self, ledger: HeadLedger, history: History, sites: Sequence[Site]) -> None:
        models = await self._registry.spaces.models()
        for site in sites:
            head = ledger.head(site, history, models)
            payload = head.to_json()
            if self._told_heads.get(site.site_id) == payload:
                continue
            if await self._publish(channels.SYNC_HEAD, head, site_id=site.site_id):
                self._told_heads[site.site_id] = payload
                self.counters["heads"] += 1

    async def _tell_changes(
        self, ledger: HeadLedger, history: History, sites: Sequence[Site], changed: Sequence[IdentityDelta]
    ) -> None:
        """Deltas per site. A delta that is lost is made good by the head that follows it."""
        site_ids = [site.site_id for site in sites]
        concerns: dict[str, list[IdentityDelta]] = {}
        for change in changed:
            for site_id in select_affected_sites(change.identity, site_ids):
                concerns.setdefault(site_id, []).append(change)
        previous = {site_id: ledger.version(site_id) for site_id in concerns}
        for change in changed:
            ledger.tell(change.identity)
        await asyncio.gather(
            *(
                self._tell_site(site_id, news, previous[site_id], history)
                for site_id, news in concerns.items()
            )
        )

    async def _tell_site(
        self, site_id: str, news: Sequence[IdentityDelta], previous: int, history: History
    ) -> None:
        # A removal that was purged since is in no delta: whoever has not heard of it has to ask.
        horizon = history.horizon_at(site_id)
        for part in _parts(news):
            upserts, removals = told(part, site_id, with_names=False)
            version = part[-1].identity.version
            delta = SyncDelta(
                epoch=history.epoch,
                prev_version=max(previous, horizon),
                version=version,
                upserts=upserts,
                removals=removals,
            )
            await self._publish(channels.SYNC_DELTA, delta, site_id=site_id)
            self.counters["deltas"] += 1
            previous = version


def _parts(news: Sequence[IdentityDelta]) -> Iterator[list[IdentityDelta]]:
    """`news` cut so that each part fits into a message."""
    part: list[IdentityDelta] = []
    size = 0
    for change in news:
        own = _PERSON_BYTES + sum(template_bytes(len(t.vector)) for t in change.templates)
        if part and size + own > MAX_PAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(change)
        size += own
    if part:
        yield part
