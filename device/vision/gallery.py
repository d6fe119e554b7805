"""The templates of a device, and the search for the nearest identity."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.vectors.index import DEFAULT_FLOOR, Nearest, VectorIndex, are_units

from .detectors.detector import Float32


@dataclass(frozen=True)
class GalleryMatch:
    """The most similar identity.

    `similarity` is the cosine to its best template, `distance` is 1 - cosine (0..2), `margin` the lead over
    the best template of the second-best identity.
    """

    user_id: str
    similarity: float
    distance: float
    margin: float


def _to_match(nearest: Nearest) -> GalleryMatch:
    similarity = nearest.similarity
    return GalleryMatch(nearest.key, similarity, 1.0 - similarity, similarity - nearest.runner_up)


class Gallery:
    """Templates of one space; immutable. `version` is its registry version.

    `user_ids[i]` is the identity of row i of `vectors` (float32[n, d], unit length), kept without a copy; an
    identity may have several rows. Rows that are not finite or not of unit length (after a bit flip on the
    disk, say) cannot be compared and are left out. Raises ValueError for another shape or type.
    """

    def __init__(
        self, space: EmbeddingSpace, user_ids: Sequence[str], vectors: Float32, *, version: int = 0
    ) -> None:
        if vectors.shape != (len(user_ids), space.dimension) or vectors.dtype != np.float32:
            raise ValueError(
                f"a gallery of {len(user_ids)} templates in {space.id} is float32[{len(user_ids)}, "
                f"{space.dimension}], this one is {vectors.dtype}{list(vectors.shape)}"
            )
        self.space = space
        self.version = version
        try:
            self._index = VectorIndex.from_vectors(user_ids, vectors)
        except ValueError:
            # Searched only now: the index checks all rows anyway while they are in the CPU cache.
            fine = are_units(vectors)
            self._index = VectorIndex.from_vectors(list(compress(user_ids, fine)), vectors[fine])

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self._index)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """All identities, in the order of their first templates."""
        return self._index.keys

    def match(self, queries: Float32, floor: float = DEFAULT_FLOOR) -> list[GalleryMatch | None]:
        """Return the best identity for each of `queries` (float32[q, d]).

        The result equals a comparison with every template for similarities of at least `floor`, also for the
        second-best identity: set `floor` to the lowest similarity that counts, less the margin. Below it
        another identity may be nearer. None for an empty gallery, and for a query that is zero or not finite.
        With a single identity the second best counts as opposite (similarity -1), so the margin is
        similarity + 1.
        """
        return [_to_match(nearest) if nearest else None for nearest in self._index.search(queries, floor)]

    @classmethod
    def empty(cls, space: EmbeddingSpace) -> "Gallery":
        return cls(space, [], np.empty((0, space.dimension), dtype=np.float32))


class GalleryHolder:
    """The holder of the gallery in use.

    `swap` replaces one reference, so recognition never waits and never sees a mixture. Process a frame
    within `borrow`.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._current = gallery
        self._generation = 0
        # The generations of the borrowed galleries.
        self._borrowed: list[int] = []
        self._returned = threading.Condition()

    @property
    def current(self) -> Gallery:
        return self._current

    @contextmanager
    def borrow(self) -> Iterator[Gallery]:
        """Borrow the gallery in use. A `swap` waits until it is returned.

        Everything that must not outlive a deletion, up to storing an event, belongs inside. A swap from
        inside would wait for itself.
        """
        with self._returned:
            gallery, generation = self._current, self._generation
            self._borrowed.append(generation)
        try:
            yield gallery
        finally:
            with self._returned:
                self._borrowed.remove(generation)
                self._returned.notify_all()

    def swap(self, gallery: Gallery) -> None:
        """Use `gallery` from now on, and wait until every older one is returned.

        Raises ValueError if it is of another space.
        """
        if (gallery.space.id, gallery.space.dimension) != (
            self._current.space.id,
            self._current.space.dimension,
        ):
            raise ValueError(f"expected a gallery of {self._current.space.id}, got one of {gallery.space.id}")
        with self._returned:
            self._generation += 1
            self._current, generation = gallery, self._generation
            self._returned.wait_for(lambda: all(borrowed >= generation for borrowed in self._borrowed))
