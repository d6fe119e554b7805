"""The bootstrap over people, and what a number of pairs can show."""

import math
from math import comb

import numpy as np
import pytest

from fleet.model.measures.claims import (
    comparison_far,
    expected_threshold,
    pairs_to_claim,
    search_far,
    shown_threshold,
    upper_bound,
)
from fleet.model.measures.error_rates import RankedPairs
from fleet.model.measures.intervals import bootstrap
from fleet.model.measures.pair_scores import score_pairs
from tests.unit.fleet.model.test_pair_scores import unit_vectors


def test_an_interval_spans_people_and_not_pairs() -> None:
    """One of ten people is never recognised, with 40 of 130 searches.

    This person is drawn none to three times.
    """
    subjects = np.repeat(np.arange(10), [40] + [10] * 9).astype(np.int32)
    centres = unit_vectors(10, dimension=64)
    spread = unit_vectors(130, 1, dimension=64)
    vectors = centres[subjects] * 3 + spread
    vectors[:40] = spread[:40]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = RankedPairs(score_pairs(vectors.astype(np.float32), subjects))
    hits = np.array([0] + [10] * 9)
    ticks: list[int] = []
    found = bootstrap(
        ranked, [0.01], hits, np.bincount(subjects), resamples=400, tick=lambda: ticks.append(1)
    )
    assert len(ticks) == 400
    assert found.rank1 is not None
    assert found.tar[0] is not None
    assert found.rank1.high == 1.0
    # Drawn three times of ten: 70 hits of 190.
    assert found.rank1.low == pytest.approx(70 / 190)
    assert found.tar[0].high > 0.99 > 0.4 > found.tar[0].low
    again = bootstrap(ranked, [0.01], hits, np.bincount(subjects), resamples=400)
    assert again == found


@pytest.mark.parametrize("people", [1, 2])
def test_fewer_than_three_people_have_no_interval(people: int) -> None:
    subjects = (np.arange(8) % people).astype(np.int32)
    ranked = RankedPairs(score_pairs(unit_vectors(8), subjects))
    found = bootstrap(ranked, [0.01], np.ones(people, int), np.ones(people, int), resamples=50)
    assert (found.rank1, found.eer, found.tar) == (None, None, (None,))


@pytest.mark.parametrize(("people", "far"), [(1, 0.01), (17, 0.01), (1000, 0.001)])
def test_the_chance_of_a_search_is_that_of_all_its_comparisons(people: int, far: float) -> None:
    one = comparison_far(far, people)
    assert 1 - (1 - one) ** people == pytest.approx(far)
    assert search_far(one, people) == pytest.approx(far)
    assert one <= far


@pytest.mark.parametrize(("errors", "pairs"), [(0, 300), (0, 5000), (1, 1000), (5, 2000), (40, 10_000)])
def test_the_bound_covers_that_of_the_binomial(errors: int, pairs: int) -> None:
    """At the bound, so few errors have a chance of at most 5 %.

    A little below it they have more.
    """

    def chance(rate: float) -> float:
        return sum(comb(pairs, k) * rate**k * (1 - rate) ** (pairs - k) for k in range(errors + 1))

    bound = upper_bound(errors, pairs)
    assert chance(bound) <= 0.05
    assert chance(bound * 0.95) > 0.05
    if errors == 0:
        assert bound == pytest.approx(3 / pairs, rel=0.01)


def test_a_far_is_shown_by_three_times_its_inverse_in_pairs() -> None:
    impostor = np.linspace(0, 0.5, 3001, dtype=np.float32)
    assert pairs_to_claim(0.001) == 3000
    threshold = shown_threshold(impostor, 0.001)
    assert threshold is not None
    assert float((impostor >= threshold).mean()) == 0
    assert threshold == pytest.approx(0.5)
    assert shown_threshold(impostor[:2900], 0.001) is None
    # With more pairs some may match: 3001 show a FAR of 1 % with at most 21 errors, as 30 would be 1 %.
    loose = shown_threshold(impostor, 0.01)
    assert loose is not None
    errors = int((impostor >= loose).sum())
    assert upper_bound(errors, 3001) <= 0.01 < upper_bound(errors + 1, 3001)


def test_a_rarer_far_is_expected_along_an_exponential_tail() -> None:
    """Scores with such a tail have a known threshold."""
    random = np.random.default_rng(5)
    impostor = (0.1 + random.exponential(0.05, 4000)).astype(np.float32)
    for far in (0.01, 1e-5):
        assert expected_threshold(impostor, far) == pytest.approx(0.1 + 0.05 * math.log(1 / far), abs=0.1)
    assert expected_threshold(impostor, 1e-7) > float(impostor.max())
    assert expected_threshold(np.array([0.3], dtype=np.float32), 0.001) > 0.3
