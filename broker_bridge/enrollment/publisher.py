"""Publish each site's head and deltas, in the one process that holds the lease.

The publisher follows the registry by version. A change stream only wakes it; a poll replaces a silent stream.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from broker_bridge.change_streams import wake_on
from broker_bridge.common.retry import retry
from broker_bridge.contract import channels
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import SyncApplied
from broker_bridge.contract.wire import MAX_PAGE_BYTES
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.sites import Site
from broker_bridge.registry.identities.model import IdentityDelta
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.sync.history_guard import HistoryGuard

from .evidence import Evidence
from .heads import HeadLedger, select_affected_sites
from .sync_encoder import encode_delta, encode_entry, group_entries

_log = logging.getLogger(__name__)

_MAX_CHANGES_PER_READ = 200


class DeltaPublisher:
    """Follows the registry by version and publishes to every site."""

    def __init__(self, registry: Registry, publish: Publish, poll_seconds: float) -> None:
        self._registry = registry
        self._publish = publish
        self._poll_seconds = poll_seconds
        self._guard = HistoryGuard(registry.versions)
        self._followed: tuple[HeadLedger, History] | None = None
        self._on_progress: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()
        self._published_heads: dict[str, bytes] = {}
        self.counters: Counter[str] = Counter()

    def on_progress(self, action: Callable[[], None]) -> None:
        """Call `action` whenever `judge` knows more."""
        self._on_progress = action

    def wake(self) -> None:
        """Read changes now."""
        self._changed.set()

    def forget_heads(self) -> None:
        """Publish every head again: after a reconnect the broker may have lost them."""
        self._published_heads.clear()
        self._changed.set()

    async def publish_changes(self) -> None:
        """Publish until cancelled, starting again after each RegistryError."""
        while True:
            await retry(self._follow_history, on=RegistryError, report=self._report_restart)

    async def watch_changes(self) -> None:
        """Wake the publisher at every change of a head or a delta, until cancelled."""
        await wake_on(self._registry.deltas.watch, self.wake, self.counters)

    def _report_restart(self, error: Exception) -> None:
        self.counters["restarts"] += 1
        _log.warning("publisher cannot read the registry; starting again error=%s", type(error).__name__)

    async def _follow_history(self) -> None:
        """Publish the changes of one history until it ends or removals were missed."""
        history, identities = await self._registry.deltas.all_identities()
        if (await self._guard.check(history)).epoch != history.epoch:
            return
        ledger = HeadLedger(identities)
        cursor = history.version
        while True:
            self._followed = ledger, history
            self._on_progress()
            sites = await self._registry.sites.all()
            await self._publish_heads(ledger, history, sites)
            await self._wait()
            now, deltas = await self._registry.deltas.deltas_after(cursor, _MAX_CHANGES_PER_READ)
            now = await self._guard.check(now)
            if now.epoch != history.epoch or now.version < cursor:
                _log.warning(
                    "publisher found another history; every device syncs a snapshot epoch=%s version=%d",
                    now.epoch,
                    now.version,
                )
                return
            if now.horizon > cursor:
                _log.warning(
                    "publisher missed purged removals; counting all identities again horizon=%d cursor=%d",
                    now.horizon,
                    cursor,
                )
                return
            history = now
            if deltas:
                await self._publish_deltas(ledger, history, sites, deltas)
                cursor = deltas[-1].identity.version
                if len(deltas) == _MAX_CHANGES_PER_READ:
                    self.wake()

    def judge(self, site_id: str, applied: SyncApplied, now: History) -> Evidence:
        """Compare the digests of a device of the site with those of its version.

        `now` is the registry's history. While the publisher follows another, as it does for a moment after a
        restore, nothing can be compared.
        """
        if applied.epoch != now.epoch:
            return Evidence.SAME
        ledger, history = self._followed or (None, now)
        is_current = history.epoch == now.epoch and now.includes(history)
        if not is_current:
            self.wake()
        if ledger is None or not is_current or applied.version > history.version:
            return Evidence.AHEAD
        if not applied.spaces:
            return Evidence.SAME
        digests = ledger.digests_at(site_id, applied.version)
        if digests is None:
            return Evidence.PAST
        is_same = all(
            (reported.count, reported.digest) == (own.count, own.hex)
            for space, reported in applied.spaces.items()
            for own in (digests.get(space, Digest()),)
        )
        return Evidence.SAME if is_same else Evidence.DIFFERENT

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), self._poll_seconds)
        except asyncio.TimeoutError:
            self.counters["polls"] += 1
        self._changed.clear()

    async def _publish_heads(self, ledger: HeadLedger, history: History, sites: Sequence[Site]) -> None:
        records = await self._registry.spaces.records()
        for site in sites:
            head = ledger.head(site, history, records)
            payload = head.to_json()
            if self._published_heads.get(site.site_id) == payload:
                continue
            if await self._publish(channels.SYNC_HEAD, head, site_id=site.site_id):
                self._published_heads[site.site_id] = payload
                self.counters["heads"] += 1

    async def _publish_deltas(
        self, ledger: HeadLedger, history: History, sites: Sequence[Site], deltas: Sequence[IdentityDelta]
    ) -> None:
        """Publish `deltas` to each affected site.

        The head that follows makes good for a lost delta.
        """
        site_ids = [site.site_id for site in sites]
        by_site: dict[str, list[IdentityDelta]] = {}
        for delta in deltas:
            for site_id in select_affected_sites(delta.identity, site_ids):
                by_site.setdefault(site_id, []).append(delta)
        previous = {site_id: ledger.version(site_id) for site_id in by_site}
        for delta in deltas:
            ledger.update(delta.identity)
        await asyncio.gather(
            *(
                self._publish_to_site(site_id, of_site, previous[site_id], history)
                for site_id, of_site in by_site.items()
            )
        )

    async def _publish_to_site(
        self, site_id: str, deltas: Sequence[IdentityDelta], previous: int, history: History
    ) -> None:
        entries = [encode_entry(delta, site_id, with_names=False) for delta in deltas]
        # No delta contains a removal that was purged: a device that missed it has to send a request.
        horizon = history.horizon_at(site_id)
        for group in group_entries(entries, MAX_PAGE_BYTES):
            message = encode_delta(history.epoch, max(previous, horizon), group)
            await self._publish(channels.SYNC_DELTA, message, site_id=site_id)
            self.counters["deltas"] += 1
            previous = group[-1].version
