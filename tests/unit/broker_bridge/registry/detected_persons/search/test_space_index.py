"""Rank persons by mean cosine."""

import numpy as np
import pytest

from broker_bridge.registry.detected_persons.search.ranking import rank_by_mean_cosine
from broker_bridge.vectors.index import VectorIndex


def units(count, dimension, random):
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("dimension", "floor"), [(4, 0.2), (4, 0.6), (64, 0.35), (64, 0.5)])
def test_no_person_above_the_floor_is_missed(dimension, floor):
    """The result equals a full comparison, for any number of candidates."""
    random = np.random.default_rng(dimension)
    people = units(3000, dimension, random)
    keys = [str(number) for number in range(len(people))]
    centroid_norm = {key: float(random.uniform(0.3, 1.0)) for key in keys}
    index = VectorIndex.from_vectors(keys, people)
    for query in units(20, dimension, random):
        everyone = {int(key): float(people[int(key)] @ query) * trust for key, trust in centroid_norm.items()}
        expected = sorted((s for s in everyone.values() if s >= floor), reverse=True)
        for limit in (1, 5, 3000):
            found = rank_by_mean_cosine(index, centroid_norm, query, limit, floor)
            assert [match.similarity for match in found] == pytest.approx(expected[:limit], abs=1e-5)
            assert all(
                match.similarity == pytest.approx(everyone[match.global_id], abs=1e-5) for match in found
            )
