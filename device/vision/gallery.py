"""The people a device knows, and who of them a face is."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    `user_ids[i]` is the person of row i of `vectors` (float32[n, d], unit length), kept without a copy; a
    person may have several rows. Raises ValueError when shapes or lengths are wrong.
    """

    def __init__(
        self, space: EmbeddingSpace, user_ids: Sequence[str], vectors: Float32, *, version: int = 0
    ) -> None:
        if vectors.shape != (len(user_ids), space.dimension) or vectors.dtype != np.float32:
            raise ValueError(
                f"a gallery of {len(user_ids)} templates in {space.id} is float32[{len(user_ids)}, "
                f"{space.dimension}], this one is {vectors.dtype}{list(vectors.shape)}"
            )
        squares = np.einsum("ij,ij->i", vectors, vectors)
        # The square of a length within the tolerance; NaN fails the comparison too.
        if not (np.abs(squares - 1.0) < 2 * _UNIT_TOLERANCE).all():
            raise ValueError("a gallery's vectors are finite and of unit length")
        self.space = space
        self.version = version
        places = {user_id: place for place, user_id in enumerate(dict.fromkeys(user_ids))}
        self.people: tuple[str, ...] = tuple(places)
        self._person_of_row = np.fromiter((places[user_id] for user_id in user_ids), np.intp, len(user_ids))
        self._vectors: Float32 = vectors

    def __len__(self) -> int:
        """The number of templates."""
        return len(self._vectors)

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
        similarities = np.where(usable[:, None], queries, np.float32(0)) @ self._vectors.T
        return [self._best(row) if use else None for row, use in zip(similarities, usable, strict=True)]

    def _best(self, similarities: Float32) -> Match:
        """The best person by the best of their rows, and the lead over the best row of anybody else."""
        person = self._person_of_row[similarities.argmax()]
        similarity = float(similarities.max())
        others = similarities[self._person_of_row != person]
        second = float(others.max()) if len(others) else -1.0
        return Match(self.people[person], similarity, 1.0 - similarity, similarity - second)

    @classmethod
    def empty(cls, space: EmbeddingSpace) -> "Gallery":
        return cls(space, [], np.empty((0, space.dimension), dtype=np.float32))


class GalleryHolder:
    """The gallery in use. Once `swap` has returned, nothing can come out of the old one any more."""

    def __init__(self, gallery: Gallery) -> None:
        self._current = gallery
        self._lock = threading.Lock()

    @property
    def current(self) -> Gallery:
        return self._current

    @contextmanager
    def held(self) -> Iterator[Gallery]:
        """The gallery in use, for as long as the `with` lasts: `swap` waits for its end."""
        with self._lock:
            yield self._current

    def swap(self, gallery: Gallery) -> None:
        """Use `gallery` from now on; raises ValueError if it is of another space."""
        if (gallery.space.id, gallery.space.dimension) != (
            self._current.space.id,
            self._current.space.dimension,
        ):
            raise ValueError(f"this gallery holds {self._current.space.id}, not {gallery.space.id}")
        with self._lock:
            self._current = gallery
