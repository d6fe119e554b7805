"""Reserve global ids in blocks."""

from collections import deque

from broker_bridge.registry.detected_persons.tracker_store import TrackerStore

_BLOCK_SIZE = 64


class GlobalIds:
    """Global ids that no other tracker has or will have.

    Those not used are lost, never reused.
    """

    def __init__(self, store: TrackerStore) -> None:
        self._store = store
        self._reserved: deque[int] = deque()
        self._highest = 0

    def drop_reserved(self) -> None:
        """Drop the reserved ids, which another tracker may have after a restore."""
        self._reserved.clear()

    async def reserve(self, count: int) -> None:
        """Make sure that `count` ids can be taken. Raises RegistryError."""
        while len(self._reserved) < count:
            block = await self._store.take_ids(max(_BLOCK_SIZE, count), self._highest)
            self._highest = block[-1]
            self._reserved.extend(block)

    def take(self) -> int:
        return self._reserved.popleft()
