"""A map with entries that expire."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ExpiringMap(Generic[K, V]):
    """Values by key, each for `seconds` after its last `put`.

    Time is passed in and never goes back. Entries are in order of their last `put`, so that `expire`
    looks at the front only.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V, now: float) -> None:
        """Store `value` under `key` and restart its time."""
        self._entries[key] = (now, value)
        self._entries.move_to_end(key)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def values(self) -> Iterator[V]:
        """Yield the values in order of their last `put`."""
        for _, value in self._entries.values():
            yield value

    def expire(self, now: float) -> None:
        """Remove entries with a last `put` more than `seconds` ago."""
        while self._entries:
            key, (put_at, _) = next(iter(self._entries.items()))
            if now - put_at <= self._seconds:
                break
            del self._entries[key]
