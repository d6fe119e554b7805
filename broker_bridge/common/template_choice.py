"""Which of a person's pictures become templates: of that person, good, and as different as can be."""

from collections.abc import Sequence

import numpy as np

from broker_bridge.contract.embeddings import Vector

MOST_TEMPLATES = 5
# A picture of less than this share of the best one's quality is not among the good ones.
_GOOD_SHARE = 0.5
# Cosine distance under which a picture shows nothing that the others do not.
_NOTHING_NEW = 0.01


def find_outliers(vectors: Vector, reach: float) -> list[int]:
    """The rows of `vectors` (float32[n, d], unit length) farther than `reach` (cosine distance) from the most
    typical one: somebody else's picture in the folder. With fewer than three nobody can tell which it is."""
    if len(vectors) < 3:
        return []
    similarities = vectors @ vectors.T
    typical = int(similarities.sum(axis=1).argmax())
    return [int(row) for row in np.flatnonzero(1.0 - similarities[typical] > reach)]


def choose_templates(vectors: Vector, qualities: Sequence[float], most: int = MOST_TEMPLATES) -> list[int]:
    """At most `most` rows of `vectors` (float32[n, d], unit length): the best one, then always the good one
    that is farthest from those chosen (Gonzalez 1985), as long as it is new."""
    if not len(vectors):
        return []
    quality = np.asarray(qualities, dtype=np.float64)
    good = quality >= _GOOD_SHARE * quality.max()
    chosen = [int(quality.argmax())]
    nearest = 1.0 - vectors @ vectors[chosen[0]]
    while len(chosen) < most:
        farthest = int(np.where(good, nearest, -1.0).argmax())
        if nearest[farthest] < _NOTHING_NEW:
            break
        chosen.append(farthest)
        nearest = np.minimum(nearest, 1.0 - vectors @ vectors[farthest])
    return chosen
