"""Search this program's recent writes, for an engine that lags behind."""

from collections.abc import Callable

import numpy as np

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.vectors.index import VectorIndex

from .engine import FaceCandidate
from .ranking import rank_by_mean_cosine

# Per space; some 20 MB, and a fraction of a millisecond to search.
_MAX_PERSONS = 10_000


class RecentWrites:
    """The centroids written within `seconds`, at most `_MAX_PERSONS` per space."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._spaces: dict[str, _RecentSpace] = {}

    def record_centroid(self, global_id: int, centroid: FaceCentroid) -> None:
        if centroid.space not in self._spaces:
            self._spaces[centroid.space] = _RecentSpace(len(centroid.mean))
        self._spaces[centroid.space].put(global_id, centroid, self._clock())

    def record_deletion(self, global_id: int) -> None:
        for space in self._spaces.values():
            space.put(global_id, None, self._clock())

    def overrides(self, space: str, global_id: int) -> bool:
        """Return whether a recent write is newer than the engine's result for a person."""
        recent = self._current(space)
        return recent is not None and global_id in recent.written_at

    def candidates(self, space: str, vector: Vector, limit: int, floor: float) -> list[FaceCandidate]:
        """Return the candidates among the recent writes; see `rank_by_mean_cosine`."""
        recent = self._current(space)
        if recent is None:
            return []
        return rank_by_mean_cosine(recent.index, recent.norms, vector, limit, floor)

    def _current(self, space: str) -> "_RecentSpace | None":
        recent = self._spaces.get(space)
        if recent is not None:
            recent.expire(self._clock() - self._seconds)
        return recent


class _RecentSpace:
    def __init__(self, dimension: int) -> None:
        self.index = VectorIndex(dimension)
        self.norms: dict[str, float] = {}
        # Of every write, deletions too; the oldest first.
        self.written_at: dict[int, float] = {}

    def put(self, global_id: int, centroid: FaceCentroid | None, now: float) -> None:
        self.written_at.pop(global_id, None)
        self.written_at[global_id] = now
        if centroid is None:
            self._drop(global_id)
        else:
            self.index.put(str(global_id), centroid.unit[np.newaxis])
            self.norms[str(global_id)] = centroid.centroid_norm
        if len(self.written_at) > _MAX_PERSONS:
            self._expire_one(next(iter(self.written_at)))

    def expire(self, before: float) -> None:
        while self.written_at and next(iter(self.written_at.values())) < before:
            self._expire_one(next(iter(self.written_at)))

    def _expire_one(self, global_id: int) -> None:
        del self.written_at[global_id]
        self._drop(global_id)

    def _drop(self, global_id: int) -> None:
        self.index.remove(str(global_id))
        self.norms.pop(str(global_id), None)
