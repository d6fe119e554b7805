"""Leads while it holds the lease: what must not be done twice is done by one worker."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .registry import RegistryError
from .registry.mongo.leases import Lease
from .tasks import cancel_and_wait

_log = logging.getLogger(__name__)

_RELEASE_SECONDS = 1.0


class LeaderElection:
    """Renews a lease three times in its length and runs `lead` while it is held; `task` says what that is.

    Whoever is not `able` to do it, for as long as a lease lasts, gives it up to others.
    """

    def __init__(
        self,
        lease: Lease,
        seconds: float,
        lead: Callable[[], Coroutine[Any, Any, None]],
        task: str = "leads",
        able: Callable[[], bool] = lambda: True,
    ) -> None:
        self._task = task
        self._held_until = 0.0
        self._lease = lease
        self._seconds = seconds
        self._lead = lead
        self._able = able
        self._leading: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        return self._leading is not None

    def holds(self) -> bool:
        """Whether the lease is held at this moment; after a freeze, tasks may run before they are ended."""
        return self._leading is not None and time.monotonic() < self._held_until

    async def run(self) -> None:
        """Take, keep and lose the lease until cancelled; then give it back."""
        self._held_until = able_at = time.monotonic()
        try:
            while True:
                able_at = time.monotonic() if self._able() else able_at
                if time.monotonic() - able_at <= self._seconds:
                    await self._take()
                elif self._leading:
                    await self._end()
                    await self._give_back()
                if time.monotonic() >= self._held_until:
                    await self._end()
                await self._watch_over(self._seconds / 3)
        finally:
            await self._end()
            await self._give_back()

    async def _take(self) -> None:
        """Take or renew the lease, unless another has it."""
        asked_at = time.monotonic()
        try:
            # A server that says nothing must not keep this worker leading past its lease.
            patience = max(self._held_until - asked_at, self._seconds / 3)
            if await asyncio.wait_for(self._lease.take(), patience):
                self._held_until = asked_at + self._seconds
                self._start()
            else:
                self._held_until = asked_at
        except (RegistryError, asyncio.TimeoutError) as error:
            _log.warning("the lease could not be renewed: %s", type(error).__name__)

    async def _give_back(self) -> None:
        try:
            await asyncio.wait_for(self._lease.release(), _RELEASE_SECONDS)
        except (RegistryError, asyncio.TimeoutError):
            _log.info("the lease is left to run out")

    def _start(self) -> None:
        if self._leading is None:
            _log.info("this worker %s", self._task)
            self._leading = asyncio.create_task(self._lead())

    async def _watch_over(self, seconds: float) -> None:
        """Wait; a leader that ended by itself ended by a mistake, which is raised."""
        waiting = asyncio.create_task(asyncio.sleep(seconds))
        watched = {waiting} | ({self._leading} if self._leading else set())
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if self._leading and self._leading.done():
                self._leading.result()
        finally:
            waiting.cancel()

    async def _end(self) -> None:
        if self._leading is None:
            return
        await cancel_and_wait([self._leading])
        self._leading = None
