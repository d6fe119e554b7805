"""What this program has learned within the last minute, for a search engine that lags behind."""

from collections.abc import Callable

import numpy as np

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.vectors.index import VectorIndex

from .engine import FaceCandidate
from .space_index import most_alike

# Some 20 MB, and a fraction of a millisecond to search.
_MOST_PEOPLE = 10_000


class RecentWrites:
    """Compared exactly. At most `_MOST_PEOPLE` per space, each for `seconds` by `clock`."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._spaces: dict[str, _Space] = {}

    def record_centroid(self, global_id: int, face: FaceCentroid) -> None:
        """How somebody is known since now."""
        if face.space not in self._spaces:
            self._spaces[face.space] = _Space(len(face.mean))
        self._spaces[face.space].put(global_id, face, self._clock())

    def record_deletion(self, global_id: int) -> None:
        """Nobody is to be found under this number."""
        for space in self._spaces.values():
            space.put(global_id, None, self._clock())

    def speaks_of(self, space: str, global_id: int) -> bool:
        """Whether this knows better than the engine."""
        recent = self._current(space)
        return recent is not None and global_id in recent.since

    def candidates(self, space: str, vector: Vector, limit: int, floor: float) -> list[FaceCandidate]:
        """As most_alike, among the recent ones."""
        recent = self._current(space)
        return [] if recent is None else most_alike(recent.index, recent.centroid_norm, vector, limit, floor)

    def _current(self, space: str) -> "_Space | None":
        recent = self._spaces.get(space)
        if recent is not None:
            recent.forget(self._clock() - self._seconds)
        return recent


class _Space:
    def __init__(self, dimension: int) -> None:
        self.index = VectorIndex(dimension)
        self.centroid_norm: dict[str, float] = {}
        # Of everybody spoken of, forgotten ones too: when that was, the longest ago first.
        self.since: dict[int, float] = {}

    def put(self, global_id: int, face: FaceCentroid | None, now: float) -> None:
        self.since.pop(global_id, None)
        self.since[global_id] = now
        if face is None:
            self._drop(global_id)
        else:
            self.index.put(str(global_id), face.unit[np.newaxis])
            self.centroid_norm[str(global_id)] = face.centroid_norm
        if len(self.since) > _MOST_PEOPLE:
            self._end(next(iter(self.since)))

    def forget(self, before: float) -> None:
        while self.since and next(iter(self.since.values())) < before:
            self._end(next(iter(self.since)))

    def _end(self, global_id: int) -> None:
        del self.since[global_id]
        self._drop(global_id)

    def _drop(self, global_id: int) -> None:
        self.index.remove(str(global_id))
        self.centroid_norm.pop(str(global_id), None)
