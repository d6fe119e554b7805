"""Rank the persons of a vector index by mean cosine."""

from collections.abc import Iterable, Mapping

from broker_bridge.contract.embeddings import Vector
from broker_bridge.vectors.index import VectorIndex

from .engine import FaceCandidate

# More neighbours than wanted are read, since the order by cosine is not that by mean cosine.
_SPARE = 4


def rank_by_mean_cosine(
    index: VectorIndex, norms: Mapping[str, float], vector: Vector, limit: int, floor: float
) -> list[FaceCandidate]:
    """Return up to `limit` persons with a mean cosine of `floor` or more to `vector`.

    Exact.

    The keys of `index` and `norms` are global ids as text.
    """
    neighbours = _SPARE * limit
    while True:
        ranked = index.rank(vector, neighbours, floor)
        best = most_similar(FaceCandidate(int(one.key), one.similarity * norms[one.key]) for one in ranked)
        best = [one for one in best[:limit] if one.similarity >= floor]
        # A person past the last neighbour has no larger cosine, and so no larger mean cosine.
        if len(ranked) < neighbours or (len(best) == limit and best[-1].similarity >= ranked[-1].similarity):
            return best
        neighbours *= _SPARE


def most_similar(candidates: Iterable[FaceCandidate]) -> list[FaceCandidate]:
    """Return `candidates`, the most similar first."""
    return sorted(candidates, key=lambda one: one.similarity, reverse=True)
