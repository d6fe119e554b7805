"""Compare the new templates of a batch of changes with each other. No I/O."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector, to_array
from broker_bridge.vectors.index import Nearest

# A longer list does not help an operator.
_MOST_PER_CHANGE = 5


@dataclass(frozen=True)
class LookAlike:
    """Another identity with a similar face.

    `similarity` is the cosine similarity of the nearest templates in `space`.
    """

    user_id: str
    similarity: float
    space: str


@dataclass(frozen=True)
class NewTemplate:
    """A template that a change adds: `vector` is float32[d] of unit length, as bytes.

    `change` is the position of the change in its batch, `owner` the user id that the change is about. A
    template that may not be sent to devices is not `sendable`: no other face is compared with it.
    """

    vector: bytes
    change: int
    owner: str
    sendable: bool


@dataclass(frozen=True)
class NearPair:
    """An `earlier` change of another `owner` that adds a similar face."""

    earlier: int
    owner: str
    space: str
    similarity: float


@dataclass
class SpaceBatch:
    """New templates of one space in the order of their changes.

    `limit` is the similarity of a look-alike.
    """

    space: EmbeddingSpace
    limit: float
    rows: list[NewTemplate] = field(default_factory=list)

    def rows_from(self, change: int) -> list[NewTemplate]:
        """Return the templates of the changes from position `change` on."""
        return self.rows[self._first_row(change) :]

    def near_pairs(self, first_change: int) -> Iterator[tuple[int, NearPair]]:
        """Yield changes with each earlier change that adds a similar face.

        The changes are those from `first_change` on.
        """
        vectors: Vector = np.stack([to_array(row.vector) for row in self.rows])
        for number in range(self._first_row(first_change), len(self.rows)):
            row = self.rows[number]
            # Not a matrix product: the threads of BLAS would wait for each other, spinning.
            similarities = np.vecdot(vectors[:number], vectors[number])
            for column in np.flatnonzero(similarities >= self.limit).tolist():
                other = self.rows[column]
                if other.sendable and other.owner != row.owner:
                    pair = NearPair(other.change, other.owner, self.space.id, float(similarities[column]))
                    yield row.change, pair

    def _first_row(self, change: int) -> int:
        return bisect_left(self.rows, change, key=attrgetter("change"))


class SimilarityTable:
    """The highest similarity of each change to each other identity, by space."""

    def __init__(self) -> None:
        self._similarity: dict[int, dict[tuple[str, str], float]] = {}

    def add(self, change: int, user_id: str, space: str, similarity: float) -> None:
        """Keep the higher one of this similarity and a previous one."""
        known = self._similarity.setdefault(change, {})
        known[user_id, space] = max(similarity, known.get((user_id, space), -1.0))

    def look_alikes_of(self, change: int) -> tuple[LookAlike, ...]:
        """Return up to five look-alikes of a change, most similar first."""
        found = [
            LookAlike(user_id, min(1.0, round(similarity, 4)), space)
            for (user_id, space), similarity in self._similarity.get(change, {}).items()
        ]
        return tuple(sorted(found, key=lambda near: (-near.similarity, near.user_id))[:_MOST_PER_CHANGE])


def near_pairs_by_change(batches: Sequence[SpaceBatch], first_change: int) -> dict[int, list[NearPair]]:
    """Return the near pairs of every batch, by the later change of the pair."""
    found: dict[int, list[NearPair]] = {}
    for batch in batches:
        for change, pair in batch.near_pairs(first_change):
            found.setdefault(change, []).append(pair)
    return found


def nearest_other(owner: str, nearest: Nearest | None) -> tuple[str, float] | None:
    """Return the user id and similarity of the nearest other identity."""
    if nearest is None:
        return None
    if nearest.key != owner:
        return nearest.key, nearest.similarity
    return None if nearest.runner_up_key is None else (nearest.runner_up_key, nearest.runner_up)
