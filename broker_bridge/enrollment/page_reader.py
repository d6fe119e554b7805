"""Read sync pages in blocks, once for all devices, ahead of their requests."""

import asyncio
from collections import Counter

from broker_bridge.common.tasks import cancel_and_wait
from broker_bridge.registry import RegistryError
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.sync.changes import DeltaQueries

from .page_cache import PageCache
from .sync_pages import PageContent, PagePosition, cut_pages

# Limits of one block: a dozen pages, some 20 ms of reading.
_BLOCK_IDENTITIES = 1000
_BLOCK_BYTES = 3 * 1024 * 1024
_MAX_READ_AHEAD = 2
_IDLE_SECONDS = 20.0


class PageReader:
    """Pages by position, from the cache or from the registry.

    `counters` has `blocks_read`, `pages_found` and `read_ahead_failed`.
    """

    def __init__(
        self, deltas: DeltaQueries, counters: Counter[str], *, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._deltas = deltas
        self._counters = counters
        self._cache = PageCache(idle_seconds)
        self._reading: dict[PagePosition, asyncio.Task[PageContent]] = {}
        self._ahead: set[asyncio.Task[None]] = set()

    async def read_page(self, position: PagePosition, history: History) -> PageContent:
        """Return the page at `position` of `history` or a later one. Raises RegistryError."""
        self._cache.select_history(history)
        page = self._cache.get(position, history)
        if page is None:
            page = await self._read_once(position)
        else:
            self._counters["pages_found"] += 1
        if page.block_end is not None:
            self._start_read_ahead(position.after(page.block_end, page.head_version), page.history)
        return page

    def has(self, position: PagePosition, history: History) -> bool:
        """Return whether the page at `position` of `history` is cached."""
        return self._cache.has(position, history)

    async def close(self) -> None:
        """Drop the cache and cancel the reads under way."""
        self._cache.clear()
        await cancel_and_wait([*self._ahead, *self._reading.values()])

    async def _read_once(self, position: PagePosition) -> PageContent:
        """Return the page at `position`; concurrent calls share one read."""
        task = self._reading.get(position)
        if task is None:
            task = self._reading[position] = asyncio.create_task(self._read_block(position))
            task.add_done_callback(lambda _: self._reading.pop(position, None))
        return await asyncio.shield(task)

    def _start_read_ahead(self, position: PagePosition, history: History) -> None:
        if self._cache.has(position, history) or position in self._reading:
            return
        if len(self._ahead) < _MAX_READ_AHEAD:
            task = asyncio.create_task(self._read_ahead(position))
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)

    async def _read_ahead(self, position: PagePosition) -> None:
        try:
            await self._read_once(position)
        except RegistryError:
            # The request for this page reads it again and reports the error.
            self._counters["read_ahead_failed"] += 1

    async def _read_block(self, position: PagePosition) -> PageContent:
        """Cache the pages of the block at `position` and return its first page."""
        block = await self._deltas.site_deltas(
            position.site_id,
            position.since,
            position.spaces,
            max(_BLOCK_IDENTITIES, position.limit),
            _BLOCK_BYTES,
            snapshot=position.starts_snapshot,
        )
        self._counters["blocks_read"] += 1
        pages = list(cut_pages(position, block))
        self._cache.put(position, pages[0])
        for page in pages[1:]:
            self._cache.put(position.after(page.from_version, page.head_version), page)
        return pages[0]
