"""Limits from scores with a known distribution."""

import math

import numpy as np
import pytest

from fleet.errors import CannotRunError
from fleet.model.gallery_check import EnrolledGallery, check_gallery
from fleet.model.measures.claims import comparison_far
from fleet.model.measures.pair_scores import PairScores
from fleet.model.measures.proposal import LimitsProposal, propose_limits
from fleet.model.measures.searches import Searches
from tests.unit.fleet.model.test_pair_scores import unit_vectors


def scores_of(impostor: np.ndarray, genuine: np.ndarray) -> PairScores:  # type: ignore[type-arg]
    subjects = np.tile(np.array([[0, 1]], dtype=np.int32), (len(impostor), 1))
    return PairScores(
        genuine.astype(np.float32),
        np.zeros(len(genuine), np.int32),
        impostor.astype(np.float32),
        subjects,
        len(impostor),
    )


def searches_of(own: list[float], other: list[float]) -> Searches:
    arrays = [np.array(values, dtype=np.float32) for values in (own, other)]
    return Searches(np.zeros(len(own), np.int32), arrays[0], arrays[1], np.full(len(own), -1, np.float32))


def propose(pairs: int = 20_000, scale: float = 1.0, **size: float) -> LimitsProposal:
    """Return the proposal for normal scores, squeezed by `scale`.

    Impostor scores are .1 +- .1, genuine ones .7 +- .1.
    """
    random = np.random.default_rng(1)
    impostor = 1 - (1 - random.normal(0.1, 0.1, pairs)) * scale
    genuine = 1 - (1 - random.normal(0.7, 0.1, 500)) * scale
    searches = searches_of([1 - 0.3 * scale] * 20, [1 - 0.7 * scale] * 20)
    wanted = {"people": 17, "templates": 1, "far": 0.01} | size
    return propose_limits(
        scores_of(impostor, genuine),
        searches,
        people=int(wanted["people"]),
        templates=int(wanted["templates"]),
        far=wanted["far"],
    )


def test_the_chance_is_that_of_a_search_and_not_of_a_pair() -> None:
    """As many pairs lie within the limit as a search of 17 comparisons permits."""
    found = propose()
    one = comparison_far(0.01, 17)
    impostor = np.random.default_rng(1).normal(0.1, 0.1, 20_000)
    errors = float((impostor >= 1 - found.limits.distance).mean())
    assert found.is_shown
    assert 1 - (1 - errors) ** 17 <= 0.01
    # Not much stricter than needed: the normal tail has its threshold at 3.2 deviations.
    assert one == pytest.approx(5.9e-4, rel=0.01)
    assert 1 - found.limits.distance == pytest.approx(0.1 + 0.1 * 3.24, abs=0.03)


def test_all_limits_belong_together() -> None:
    found = propose()
    limits = found.limits
    assert set(found.reasons) == set(limits.model_dump())
    match = 1 - limits.distance
    assert limits.look_alike == limits.tracked_similarity == pytest.approx(match)
    assert limits.tracked_by_position < match < limits.same_person < 0.7
    assert limits.margin == limits.tracked_margin == pytest.approx(0.06, abs=0.003)
    assert found.genuine_share > 0.98


@pytest.mark.parametrize("scale", [1.0, 0.2, 0.05])
def test_a_squeezed_space_has_squeezed_limits(scale: float) -> None:
    """Cosines between .95 and 1 get limits and a margin of their scale."""
    found = propose(scale=scale)
    assert found.limits.distance == pytest.approx(propose().limits.distance * scale, abs=0.002)
    assert found.limits.margin == pytest.approx(0.06 * scale, abs=0.002)
    assert found.limits.margin > 0
    assert found.genuine_share > 0.95


@pytest.mark.parametrize(
    ("looser", "stricter"),
    [
        ({"people": 10}, {"people": 1000}),
        ({"far": 0.05}, {"far": 0.001}),
        ({"templates": 1}, {"templates": 5}),
    ],
)
def test_more_comparisons_and_fewer_errors_are_stricter(
    looser: dict[str, float], stricter: dict[str, float]
) -> None:
    assert propose(**looser).limits.distance > propose(**stricter).limits.distance


def test_too_few_pairs_show_nothing_and_get_a_stricter_limit() -> None:
    """The tail is continued; the rule of three says how many pairs it takes."""
    found = propose(pairs=1000, people=1000, far=0.01)
    assert not found.is_shown
    assert found.impostor_pairs == 1000
    assert found.needed_pairs == math.ceil(3 / comparison_far(0.01, 1000))
    # Four deviations and more: 1e-5 of the normal distribution lies beyond 4.26.
    assert 1 - found.limits.distance >= 0.1 + 0.1 * 4.26
    assert "not shown" in found.reasons["distance"]


def test_the_margin_keeps_enrolled_people_apart_where_that_costs_little() -> None:
    """One of 41 searches is led by another person by .1, right ones by .3."""
    random = np.random.default_rng(1)
    scores = scores_of(random.normal(0.1, 0.1, 20_000), random.normal(0.7, 0.1, 500))
    searches = searches_of([0.7] * 40 + [0.5], [0.4] * 40 + [0.6])
    apart = propose_limits(scores, searches, people=17, templates=1, far=0.01)
    assert apart.limits.margin == pytest.approx(0.101, abs=0.0011)
    # The same lead of half of the right searches costs too much.
    costly = searches_of([0.7] * 20 + [0.5] * 20 + [0.5], [0.62] * 20 + [0.1] * 20 + [0.6])
    kept = propose_limits(scores, costly, people=17, templates=1, far=0.01)
    assert kept.limits.margin == pytest.approx(0.06, abs=0.003)


def test_a_model_that_tells_no_one_apart_has_no_limits() -> None:
    same = np.ones(5000)
    with pytest.raises(CannotRunError, match="does not tell these people apart"):
        propose_limits(
            scores_of(same, same[:10]), searches_of([1.0], [1.0]), people=10, templates=1, far=0.01
        )


def test_a_gallery_shows_limits_that_do_not_fit() -> None:
    """In a squeezed space every two people lie within a distance for another one."""
    vectors = unit_vectors(12, dimension=32)
    squeezed = vectors * 0.3 + np.full(32, 1 / math.sqrt(32), np.float32)
    squeezed /= np.linalg.norm(squeezed, axis=1, keepdims=True)
    user_ids = tuple(f"EMP-{row // 2}" for row in range(12))
    for rows, matching in ((vectors, 0), (squeezed.astype(np.float32), 60)):
        fit = check_gallery(EnrolledGallery(user_ids, rows), 0.35)
        assert (fit.people, fit.templates, fit.pairs, fit.matching) == (6, 12, 60, matching)
    cosines = vectors @ vectors.T
    cosines[np.array([[one == two for two in user_ids] for one in user_ids])] = -1
    found = check_gallery(EnrolledGallery(user_ids, vectors), 0.35).most_alike
    assert found is not None
    assert found[2] == pytest.approx(float(cosines.max()))


@pytest.mark.parametrize("user_ids", [(), ("EMP-1",), ("EMP-1", "EMP-1")])
def test_a_gallery_without_two_people_has_no_pairs(user_ids: tuple[str, ...]) -> None:
    fit = check_gallery(EnrolledGallery(user_ids, unit_vectors(len(user_ids))), 0.5)
    assert (fit.pairs, fit.share, fit.most_alike) == (0, 0.0, None)
