"""Choose templates among the pictures of one identity: good and different ones."""

from collections.abc import Sequence

import numpy as np

from broker_bridge.contract.embeddings import Vector

MAX_TEMPLATES = 5
# A good picture has at least this share of the best one's quality.
_GOOD_SHARE = 0.5
# A picture nearer than this cosine distance to a chosen one adds no information.
_MIN_DISTANCE = 0.01


def find_outliers(vectors: Vector, max_distance: float) -> list[int]:
    """Return the rows of `vectors` that show another person than the most typical row.

    `vectors` is float32[n, d] of unit length; such rows are farther than `max_distance` (cosine distance)
    from the most typical one. Empty for fewer than three rows, which have no typical one.
    """
    if len(vectors) < 3:
        return []
    similarities = vectors @ vectors.T
    typical = int(similarities.sum(axis=1).argmax())
    return [int(row) for row in np.flatnonzero(1.0 - similarities[typical] > max_distance)]


def choose_templates(vectors: Vector, qualities: Sequence[float], limit: int = MAX_TEMPLATES) -> list[int]:
    """Return at most `limit` rows of `vectors` (float32[n, d], unit length).

    The first is the best picture; each further one is the good picture farthest from the chosen ones
    (Gonzalez 1985), until the farthest is too near.
    """
    if not len(vectors):
        return []
    quality = np.asarray(qualities, dtype=np.float64)
    good = quality >= _GOOD_SHARE * quality.max()
    chosen = [int(quality.argmax())]
    nearest = 1.0 - vectors @ vectors[chosen[0]]
    while len(chosen) < limit:
        farthest = int(np.where(good, nearest, -1.0).argmax())
        if nearest[farthest] < _MIN_DISTANCE:
            break
        chosen.append(farthest)
        nearest = np.minimum(nearest, 1.0 - vectors @ vectors[farthest])
    return chosen
