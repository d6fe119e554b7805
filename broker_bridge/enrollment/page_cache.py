"""Keep encoded sync pages in memory while the registry does not change."""

import asyncio
from collections import OrderedDict

from broker_bridge.registry.mongo.versions import History

from .sync_pages import PageContent, PagePosition

_MAX_BYTES = 32 * 1024 * 1024


class PageCache:
    """Pages of one history by position, the least recently used dropped first.

    Pages contain faces: all are dropped `idle_seconds` after the last `select_history`.
    """

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._history: History | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._pages: OrderedDict[PagePosition, PageContent] = OrderedDict()
        self._bytes = 0

    def select_history(self, history: History) -> None:
        """Drop the pages of any other history, and start the idle time again."""
        if history != self._history:
            # Pages of another history may contain deleted identities.
            self.clear()
            self._history = history
        self._stop_expiry()
        self._expiry = asyncio.get_running_loop().call_later(self._idle_seconds, self.clear)

    def has(self, position: PagePosition, history: History) -> bool:
        """Return whether the page at `position` of `history` is cached."""
        page = self._pages.get(position)
        return page is not None and page.history == history

    def get(self, position: PagePosition, history: History) -> PageContent | None:
        """Return the page at `position` of `history`, None if it is not cached."""
        if not self.has(position, history):
            return None
        self._pages.move_to_end(position)
        return self._pages[position]

    def put(self, position: PagePosition, page: PageContent) -> None:
        """Store a page, replacing another at the same position."""
        replaced = self._pages.pop(position, None)
        self._pages[position] = page
        self._bytes += len(page.entries) - (len(replaced.entries) if replaced else 0)
        while self._bytes > _MAX_BYTES:
            _, dropped = self._pages.popitem(last=False)
            self._bytes -= len(dropped.entries)

    def clear(self) -> None:
        """Drop all pages."""
        self._pages.clear()
        self._bytes = 0
        self._stop_expiry()

    def _stop_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
