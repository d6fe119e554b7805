"""Run a task in one worker of many: the one that holds the lease."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .common.tasks import cancel_and_wait
from .registry import RegistryError
from .registry.mongo.leases import Lease

_log = logging.getLogger(__name__)

_RELEASE_SECONDS = 1.0


class LeaderElection:
    """Renews a lease and runs `lead` while it holds the lease.

    It renews three times within `seconds`. `task` names the work in the log. A worker that is not able to
    lead for the length of a lease releases it.
    """

    def __init__(
        self,
        lease: Lease,
        seconds: float,
        lead: Callable[[], Coroutine[Any, Any, None]],
        task: str = "leader",
        is_able: Callable[[], bool] = lambda: True,
    ) -> None:
        self._task = task
        self._valid_until = 0.0
        self._lease = lease
        self._seconds = seconds
        self._lead = lead
        self._is_able = is_able
        self._leading: asyncio.Task[None] | None = None

    @property
    def is_leading(self) -> bool:
        return self._leading is not None

    def holds_lease(self) -> bool:
        """Return whether the lease is valid now.

        After a freeze of the process, tasks may run before they are cancelled.
        """
        return self._leading is not None and time.monotonic() < self._valid_until

    async def compete(self) -> None:
        """Take, renew and lose the lease until cancelled; then release it."""
        self._valid_until = able_at = time.monotonic()
        try:
            while True:
                able_at = time.monotonic() if self._is_able() else able_at
                if time.monotonic() - able_at <= self._seconds:
                    await self._take_lease()
                elif self._leading:
                    await self._end_task()
                    await self._release_lease()
                if time.monotonic() >= self._valid_until:
                    await self._end_task()
                await self._wait_or_raise(self._seconds / 3)
        finally:
            await self._end_task()
            await self._release_lease()

    async def _take_lease(self) -> None:
        """Take or renew the lease, unless another worker holds it."""
        requested_at = time.monotonic()
        try:
            # A silent server must not keep this worker leading past its lease.
            patience = max(self._valid_until - requested_at, self._seconds / 3)
            if await asyncio.wait_for(self._lease.take(), patience):
                self._valid_until = requested_at + self._seconds
                self._start_task()
            else:
                self._valid_until = requested_at
        except (RegistryError, asyncio.TimeoutError) as error:
            _log.warning(
                "leader election cannot renew the lease task=%s error=%s", self._task, type(error).__name__
            )

    async def _release_lease(self) -> None:
        try:
            await asyncio.wait_for(self._lease.release(), _RELEASE_SECONDS)
        except (RegistryError, asyncio.TimeoutError):
            _log.info("leader election cannot release the lease; it expires task=%s", self._task)

    def _start_task(self) -> None:
        if self._leading is None:
            _log.info("leader election won task=%s", self._task)
            self._leading = asyncio.create_task(self._lead())

    async def _wait_or_raise(self, seconds: float) -> None:
        """Wait; raise the error of a leader task that ended by itself."""
        waiting = asyncio.create_task(asyncio.sleep(seconds))
        watched = {waiting} | ({self._leading} if self._leading else set())
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if self._leading and self._leading.done():
                self._leading.result()
        finally:
            waiting.cancel()

    async def _end_task(self) -> None:
        if self._leading is None:
            return
        await cancel_and_wait([self._leading])
        self._leading = None
