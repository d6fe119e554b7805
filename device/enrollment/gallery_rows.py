"""The gallery of one space as rows in memory.

Changes are applied without reading the database again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker_bridge.contract.embeddings import Vector, to_array
from broker_bridge.contract.messages import Upsert

_MIN_CAPACITY = 1024


@dataclass(frozen=True)
class GalleryRows:
    """The templates of one space as rows.

    Row i of `vectors` float32[n,d] belongs to `user_ids[i]`. An identity may have several rows. Raises
    ValueError unless there is one row per user id.
    """

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
    def from_stored(
        cls, space: str, dimension: int, user_ids: Sequence[str], vectors: Vector, version: int
    ) -> "GalleryRows":
        """Return the stored rows, or no rows if the space has another dimension by now."""
        if vectors.shape[1] != dimension:
            return cls(space, dimension, [], np.empty((0, dimension), dtype=np.float32), version)
        return cls(space, dimension, user_ids, vectors, version)

    def with_changes(self, upserts: Sequence[Upsert], removals: Iterable[str], version: int) -> "GalleryRows":
        """Return new rows after `upserts` and `removals`; these rows stay unchanged."""
        changed = {*removals, *(upsert.user_id for upsert in upserts)}
        added = [
            (upsert.user_id, template.vector)
            for upsert in upserts
            for template in upsert.templates
            if template.space == self.space
        ]
        if not changed:
            return replace(self, version=version)
        kept = [row for row, user_id in enumerate(self.user_ids) if user_id not in changed]
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
    """The rows of one space, collected from the pages of a first snapshot sync."""

    def __init__(self, space: str, dimension: int) -> None:
        self._space = space
        self._user_ids: list[str] = []
        self._vectors = np.empty((_MIN_CAPACITY, dimension), dtype=np.float32)

    def add(self, upserts: Iterable[Upsert]) -> None:
        """Add the templates of identities that no earlier page had."""
        added = [
            (upsert.user_id, template.vector)
            for upsert in upserts
            for template in upsert.templates
            if template.space == self._space
        ]
        if not added:
            return
        begin, end = len(self._user_ids), len(self._user_ids) + len(added)
        if end > len(self._vectors):
            # In place: a small device has no memory for two copies of a large gallery.
            self._vectors.resize((end + end // 4, self._vectors.shape[1]), refcheck=False)
        self._vectors[begin:end] = to_array(b"".join(vector for _, vector in added)).reshape(len(added), -1)
        self._user_ids += [user_id for user_id, _ in added]

    def build(self, version: int) -> GalleryRows:
        """Return all rows; the builder is not used after that."""
        dimension = self._vectors.shape[1]
        self._vectors.resize((len(self._user_ids), dimension), refcheck=False)
        return GalleryRows(self._space, dimension, self._user_ids, self._vectors, version)
