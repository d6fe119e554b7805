"""The people a device knows, and who of them a face is."""

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
    """The most similar person: `similarity` is the cosine to the best of that person's templates,
    `distance` is 1 - cosine (0..2), `margin` the lead over the best template of the second-best person."""

    user_id: str
    similarity: float
    distance: float
    margin: float


def _to_match(nearest: Nearest) -> GalleryMatch:
    similarity = nearest.similarity
    return GalleryMatch(nearest.key, similarity, 1.0 - similarity, similarity - nearest.runner_up)


class Gallery:
    """Templates of one space; immutable. `version` is the registry version that it was read at.

    `user_ids[i]` is the person of row i of `vectors` (float32[n, d], unit length), kept without a copy; a
    person may have several rows. Rows that are not finite and of unit length (a bit may have flipped on the
    disk) cannot be compared and are left out. Raises ValueError for another shape or type.
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
            # Looked for only now: the index checks while it has the rows in the cache anyway.
            fine = are_units(vectors)
            self._index = VectorIndex.from_vectors(list(compress(user_ids, fine)), vectors[fine])

    def __len__(self) -> int:
        """The number of templates."""
        return len(self._index)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Everyone, in the order of their first templates."""
        return self._index.keys

    def match(self, queries: Float32, floor: float = DEFAULT_FLOOR) -> list[GalleryMatch | None]:
        """The best person for each of `queries` (float32[q, d]); the same as comparing with every template.

        That holds for similarities of `floor` and more, the second-best person's too: `floor` is at most the
        similarity that counts, less the margin that is asked for. Below it somebody else may be nearer still.
        None for everyone when the gallery is empty, and for a query that is zero or not finite. With a single
        person the second best counts as opposite (similarity -1): the margin is then similarity + 1.
        """
        return [_to_match(nearest) if nearest else None for nearest in self._index.search(queries, floor)]

    @classmethod
    def empty(cls, space: EmbeddingSpace) -> "Gallery":
        return cls(space, [], np.empty((0, space.dimension), dtype=np.float32))


class GalleryHolder:
    """The gallery in use. `swap` replaces one reference, so recognition never waits and never sees a mixture:
    whoever works on a frame does so within `borrow`."""

    def __init__(self, gallery: Gallery) -> None:
        self._current = gallery
        self._generation = 0
        # The generation of every gallery that somebody works with.
        self._held: list[int] = []
        self._left = threading.Condition()

    @property
    def current(self) -> Gallery:
        return self._current

    @contextmanager
    def borrow(self) -> Iterator[Gallery]:
        """The gallery in use; a `swap` meanwhile gives the others the new one, and waits until this is left.

        So whatever shall not outlive a deletion, up to storing an event, belongs inside. Swapping from inside
        would wait for itself.
        """
        with self._left:
            gallery, generation = self._current, self._generation
            self._held.append(generation)
        try:
            yield gallery
        finally:
            with self._left:
                self._held.remove(generation)
                self._left.notify_all()

    def swap(self, gallery: Gallery) -> None:
        """Use `gallery` from now on; when this returns, nobody works with an older one any more.

        Raises ValueError if it is of another space.
        """
        if (gallery.space.id, gallery.space.dimension) != (
            self._current.space.id,
            self._current.space.dimension,
        ):
            raise ValueError(f"this gallery holds {self._current.space.id}, not {gallery.space.id}")
        with self._left:
            self._generation += 1
            self._current, generation = gallery, self._generation
            self._left.wait_for(lambda: all(held >= generation for held in self._held))
