"""What the leader does now and then: forget who was deleted or last seen long ago, and finish erasures."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from broker_bridge.common.clock import utc_now

from .registry import Registry

_log = logging.getLogger(__name__)

_SECONDS = 60.0


class Housekeeping:
    """Purges tombstones, goes on with open erasures, and forgets whom no camera has seen for `unseen`.

    `counters` has `purged`, `erased`, `forgotten`, and failures of each.
    """

    def __init__(
        self,
        registry: Registry,
        retention: timedelta,
        *,
        unseen: timedelta,
        seconds: float = _SECONDS,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._retention = retention
        self._unseen = unseen
        self._seconds = seconds
        self._now = now
        self.counters: Counter[str] = Counter()

    async def run(self) -> None:
        """Tidy up now and every `seconds`, until cancelled."""
        while True:
            await self.tidy()
            await asyncio.sleep(self._seconds)

    async def tidy(self) -> None:
        """Do what is due. A chore that fails is counted, and done the next time."""
        await self._do("purged", self._purge)
        await self._do("erased", self._go_on_with_erasures)
        await self._do("forgotten", self._forget_unseen)

    async def _do(self, chore: str, work: Callable[[], Awaitable[int]]) -> None:
        try:
            self.counters[chore] += await work()
        except Exception as error:  # noqa: BLE001  # whatever is wrong here, cameras need their heads and deltas
            self.counters[f"{chore}_failures"] += 1
            _log.warning("housekeeping has to try again (%s): %s", chore, type(error).__name__)

    async def _purge(self) -> int:
        return await self._registry.tombstones.purge(self._now(), self._retention)

    async def _go_on_with_erasures(self) -> int:
        return await self._registry.erasures.go_on_with_all(self._now())

    async def _forget_unseen(self) -> int:
        now = self._now()
        await self._registry.detected_person_removal.remove_late_writes(now)
        return await self._registry.detected_person_removal.forget_unseen(now - self._unseen, now)
