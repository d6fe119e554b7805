"""The gallery of one space as rows in memory, changed without reading the database again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker_bridge.contract.embeddings import Vector, to_array
from broker_bridge.contract.messages import Upsert

_FEWEST_ROWS = 1024


@dataclass(frozen=True)
class GalleryRows:
    """Row i of `vectors` float32[n,d] is a template of `user_ids[i]`; a person may have several rows."""

    space: str
    dimension: int
    user_ids: Sequence[str]
    vectors: Vector
    version: int

    def __post_init__(self) -> None:
        if self.vectors.shape != (len(self.user_ids), self.dimension):
            raise ValueError(
                f"{self.space}: expected float32[{len(self.user_ids)},{self.dimension}], "
                f"one row per user id, got {self.vectors.shape}"
            )

    @classmethod
    def usable(
        cls, space: str, dimension: int, user_ids: Sequence[str], vectors: Vector, version: int
    ) -> "GalleryRows":
        """These rows, or none if the space has another dimension by now."""
        if vectors.shape[1] != dimension:
            return cls(space, dimension, [], np.empty((0, dimension), dtype=np.float32), version)
        return cls(space, dimension, user_ids, vectors, version)

    def changed(self, upserts: Sequence[Upsert], removals: Iterable[str], version: int) -> "GalleryRows":
        """New rows in which `upserts` are as they say and `removals` are gone; these stay unchanged."""
        gone = {*removals, *(upsert.user_id for upsert in upserts)}
        added = [
            (upsert.user_id, template.vector)
            for upsert in upserts
            for template in upsert.templates
            if template.space == self.space
        ]
        if not gone:
            return replace(self, version=version)
        kept = [row for row, user_id in enumerate(self.user_ids) if user_id not in gone]
        vectors = np.empty((len(kept) + len(added), self.dimension), dtype=np.float32)
        if len(kept) == len(self.user_ids):
            vectors[: len(kept)] = self.vectors
        else:
            np.take(self.vectors, kept, axis=0, out=vectors[: len(kept)], mode="clip")
        for row, (_, vector) in enumerate(added, start=len(kept)):
            vectors[row] = to_array(vector)
        user_ids = [self.user_ids[row] for row in kept] + [user_id for user_id, _ in added]
        return GalleryRows(self.space, self.dimension, user_ids, vectors, version)


class GalleryBuilder:
    """Rows of one space as pages bring them, for the day when the last one has come."""

    def __init__(self, space: str, dimension: int) -> None:
        self._space = space
        self._user_ids: list[str] = []
        self._vectors = np.empty((_FEWEST_ROWS, dimension), dtype=np.float32)

    def add(self, upserts: Iterable[Upsert]) -> None:
        """People who have not come before."""
        held = [(one.user_id, t.vector) for one in upserts for t in one.templates if t.space == self._space]
        if not held:
            return
        begin, end = len(self._user_ids), len(self._user_ids) + len(held)
        if end > len(self._vectors):
            # In place: two copies of a large gallery would be more than a small device has.
            self._vectors.resize((end + end // 4, self._vectors.shape[1]), refcheck=False)
        self._vectors[begin:end] = to_array(b"".join(vector for _, vector in held)).reshape(len(held), -1)
        self._user_ids += [user_id for user_id, _ in held]

    def rows(self, version: int) -> GalleryRows:
        """All of them; nothing is added after that."""
        dimension = self._vectors.shape[1]
        self._vectors.resize((len(self._user_ids), dimension), refcheck=False)
        return GalleryRows(self._space, dimension, self._user_ids, self._vectors, version)
