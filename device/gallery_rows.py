"""The gallery of one space as rows in memory, changed without reading the database again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker_bridge.contract.embeddings import Vector, to_array
from broker_bridge.contract.messages import Upsert


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
