"""The people a device knows, and who of them a face is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import EmbeddingSpace

from .detector import Float32

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Match:
    """The most similar person: `similarity` is the cosine to the best of that person's templates,
    `distance` is 1 - cosine (0..2), `margin` the lead over the best template of the second-best person."""

    user_id: str
    similarity: float
    distance: float
    margin: float


class Gallery:
    """Templates of one space; immutable. `version` is the registry version that it was read at.

    `user_ids[i]` is the person of row i of `vectors` (float32[n, d], unit length); a person may have several
    rows. Raises ValueError when shapes or lengths are wrong.
    """

    def __init__(
        self, space: EmbeddingSpace, user_ids: Sequence[str], vectors: Float32, *, version: int = 0
    ) -> None:
        if vectors.shape != (len(user_ids), space.dimension) or vectors.dtype != np.float32:
            raise ValueError(
                f"a gallery of {len(user_ids)} templates in {space.id} is float32[{len(user_ids)}, "
                f"{space.dimension}], this one is {vectors.dtype}{list(vectors.shape)}"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.abs(lengths - 1.0) < _UNIT_TOLERANCE).all():
            raise ValueError("a gallery's vectors are finite and of unit length")
        self.space = space
        self.version = version
        # A person's rows lie side by side, so that the best per person is one `reduceat` over the columns.
        order = np.argsort(np.array(user_ids, dtype=np.str_), kind="stable")
        ids = [user_ids[row] for row in order]
        self._first_rows = np.array(
            [row for row, user_id in enumerate(ids) if row == 0 or ids[row - 1] != user_id], dtype=np.intp
        )
        self.people: tuple[str, ...] = tuple(ids[row] for row in self._first_rows)
        self._columns: Float32 = np.ascontiguousarray(vectors[order].T)
        self._columns.setflags(write=False)

    def __len__(self) -> int:
        """The number of templates."""
        return int(self._columns.shape[1])

    def match(self, queries: Float32) -> list[Match | None]:
        """The best person for each of `queries` (float32[q, d], unit length), in one matrix product.

        None for everyone when the gallery is empty, and for a query that is zero or not finite. With a single
        person the second best counts as opposite (similarity -1): the margin is then similarity + 1.
        """
        if queries.ndim != 2 or queries.shape[1] != self.space.dimension:
            raise ValueError(
                f"queries are float32[q, {self.space.dimension}], these are {list(queries.shape)}"
            )
        if not self.people or not len(queries):
            return [None] * len(queries)
        usable: NDArray[np.bool_] = np.isfinite(queries).all(axis=1) & (queries != 0).any(axis=1)
        per_template = np.where(usable[:, None], queries, np.float32(0)) @ self._columns
        per_person = np.maximum.reduceat(per_template, self._first_rows, axis=1)
        return [self._best(row) if use else None for row, use in zip(per_person, usable, strict=True)]

    def _best(self, similarities: NDArray[np.float32]) -> Match:
        best = int(similarities.argmax())
        similarity = float(similarities[best])
        others = np.delete(similarities, best)
        second = float(others.max()) if len(others) else -1.0
        return Match(self.people[best], similarity, 1.0 - similarity, similarity - second)

    @classmethod
    def empty(cls, space: EmbeddingSpace) -> "Gallery":
        return cls(space, [], np.empty((0, space.dimension), dtype=np.float32))


class GalleryHolder:
    """The gallery in use. `swap` replaces one reference, so recognition never waits and never sees a mixture:
    whoever works on a frame reads `current` once."""

    def __init__(self, gallery: Gallery) -> None:
        self._current = gallery

    @property
    def current(self) -> Gallery:
        return self._current

    def swap(self, gallery: Gallery) -> None:
        """Use `gallery` from the next frame on; raises ValueError if it is of another space."""
        if (gallery.space.id, gallery.space.dimension) != (
            self._current.space.id,
            self._current.space.dimension,
        ):
            raise ValueError(f"this gallery holds {self._current.space.id}, not {gallery.space.id}")
        self._current = gallery
