"""Apply to the tracker what other programs change in MongoDB."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from broker_bridge.change_streams import wake_on
from broker_bridge.common.retry import repeat, retry
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.edit_stream import DetectedPersonEdit, watch_edits

from .tracker import Tracker

_log = logging.getLogger(__name__)

# Thousands of identities may be enrolled at once.
_PAUSE_SECONDS = 0.2


class DetectedPersonChanges:
    """Follows the edits of detected persons and the changes of enrolled identities."""

    def __init__(
        self, registry: Registry, tracker: Tracker, counters: Counter[str], now: Callable[[], datetime]
    ) -> None:
        self._registry = registry
        self._tracker = tracker
        self._counters = counters
        self._now = now
        self._identities_changed = asyncio.Event()

    async def apply_changes(self) -> None:
        """Apply changes until cancelled.

        `stream_breaks` counts streams that were opened again.
        """
        await asyncio.gather(
            repeat(self._follow_edits, on=RegistryError, report=self._report_break),
            wake_on(self._registry.identity_store.watch, self._identities_changed.set, self._counters),
            self._refresh_identities(),
        )

    async def _refresh_identities(self) -> None:
        """Refresh at once: a deleted identity must not be published for another second."""

        async def refresh() -> None:
            self._identities_changed.clear()
            await self._tracker.refresh_identities()

        def report(error: Exception) -> None:
            _log.warning("tracker cannot read identities; it tries again error=%s", type(error).__name__)

        while True:
            await self._identities_changed.wait()
            await retry(refresh, on=RegistryError, report=report)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow_edits(self) -> None:
        async with watch_edits(self._registry.mongo) as edits:
            # Edits from before the stream are covered by reading all persons again. Wait for the majority
            # first: a majority read may be behind the start of the stream.
            await self._registry.mongo.catch_up()
            await self._tracker.reload_all(self._now())
            async for edit in edits:
                await self._apply(edit)

    def _report_break(self, error: Exception) -> None:
        self._counters["stream_breaks"] += 1
        _log.warning("tracker lost its change stream; it opens another error=%s", type(error).__name__)

    async def _apply(self, edit: DetectedPersonEdit) -> None:
        now = self._now()
        if edit.kind == "deleted":
            await self._tracker.drop_deleted([edit.global_id])
        elif edit.kind == "linked":
            # Most links are the tracker's own.
            if not self._tracker.is_linked(edit.global_id, edit.user_id):
                await self._tracker.reload([edit.global_id], now)
        elif edit.kind == "merged":
            await self._tracker.reload([edit.global_id, edit.merged_into], now)
        elif edit.kind == "edited":
            await self._tracker.reload([edit.global_id], now)
        else:
            # After `unmerged` the former target still has the centroids of this person in memory.
            await self._tracker.reload_all(now)
