"""Write batches of changes: one is written while the next is judged."""

import asyncio
from collections.abc import Sequence
from types import TracebackType

from broker_bridge.registry.identities.model import IdentityChange
from broker_bridge.registry.matching.look_alikes import CheckedChange, LookAlikes

from .changes import ItemChange
from .tally import IngestTally


class ExternalIntake:
    """Writes batches in their order.

    As a context manager it finishes the batch that is being written.
    """

    def __init__(self, look_alikes: LookAlikes, tally: IngestTally) -> None:
        self._look_alikes = look_alikes
        self._tally = tally
        self._items: Sequence[ItemChange] = ()
        self._pending: list[IdentityChange] = []
        self._writing: asyncio.Task[list[CheckedChange]] | None = None

    async def put(self, items: Sequence[ItemChange]) -> None:
        """Judge a batch, and start to write it after the one before; raise RegistryError."""
        judged = await self._look_alikes.judge_changes([item.change for item in items], self._pending)
        await self._finish_batch()
        self._items = items
        self._pending = [item.change for item in judged if item.error is None]
        self._writing = asyncio.create_task(self._look_alikes.apply_judged(judged))

    async def _finish_batch(self) -> None:
        writing, self._writing = self._writing, None
        if writing:
            for item, checked in zip(self._items, await writing, strict=True):
                self._tally.add(item, checked)

    async def __aenter__(self) -> "ExternalIntake":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._finish_batch()
