"""What was seen of late, and forgotten by itself."""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ExpiringMap(Generic[K, V]):
    """Values by key, each for `seconds` after it was last put. Time is passed in and never goes back.

    They lie oldest first, so that forgetting looks at the front only.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key: K, value: V, now: float) -> None:
        """Keep `value` under `key`, from now on anew."""
        self._held[key] = (now, value)
        self._held.move_to_end(key)

    def get(self, key: K) -> V | None:
        found = self._held.get(key)
        return None if found is None else found[1]

    def forget(self, now: float) -> None:
        """Let go of what was last put more than `seconds` ago."""
        while self._held:
            key, (at, _) = next(iter(self._held.items()))
            if now - at <= self._seconds:
                break
            del self._held[key]
