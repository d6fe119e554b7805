"""Purge old data, finish erasures and number old events, in the leader."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from .common.clock import utc_now
from .registry import Registry

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 60.0
# A database of an earlier release gets 100,000 positions a minute, between the other chores.
_NUMBERED_BATCH = 500
_NUMBERED_BATCHES = 200


class Housekeeping:
    """Purges tombstones, continues erasures, forgets persons unseen for `unseen`.

    It also numbers events of earlier releases. `counters` has `purged`, `erased`, `forgotten`, `numbered`,
    and failures of each.
    """

    def __init__(
        self,
        registry: Registry,
        retention: timedelta,
        *,
        unseen: timedelta,
        seconds: float = _INTERVAL_SECONDS,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._retention = retention
        self._unseen = unseen
        self._seconds = seconds
        self._now = now
        self.counters: Counter[str] = Counter()

    async def tidy_regularly(self) -> None:
        """Tidy up now and every `seconds`, until cancelled."""
        while True:
            await self.tidy()
            await asyncio.sleep(self._seconds)

    async def tidy(self) -> None:
        """Do each chore that is due. A failed chore is counted and repeated the next time."""
        await self._do("purged", self._purge)
        await self._do("erased", self._continue_erasures)
        await self._do("forgotten", self._forget_unseen)
        await self._do("numbered", self._number_events)

    async def _do(self, chore: str, work: Callable[[], Awaitable[int]]) -> None:
        try:
            done = await work()
        except Exception as error:  # noqa: BLE001  # a failed chore must not stop heads and deltas
            self.counters[f"{chore}_failures"] += 1
            _log.warning(
                "housekeeping chore failed; it is repeated chore=%s error=%s", chore, type(error).__name__
            )
        else:
            # Added after the await: `+= await` would lose what was counted meanwhile.
            self.counters[chore] += done

    async def _purge(self) -> int:
        return await self._registry.tombstones.purge(self._now(), self._retention)

    async def _continue_erasures(self) -> int:
        return await self._registry.erasures.continue_open_erasures(self._now())

    async def _number_events(self) -> int:
        numbered = 0
        for _ in range(_NUMBERED_BATCHES):
            batch = await self._registry.event_feed.number_events(_NUMBERED_BATCH)
            numbered += batch
            if not batch:
                break
        return numbered

    async def _forget_unseen(self) -> int:
        now = self._now()
        await self._registry.detected_person_removal.remove_late_writes(now)
        await self._registry.space_removal.remove_orphans()
        return await self._registry.detected_person_removal.forget_unseen(now - self._unseen, now)
