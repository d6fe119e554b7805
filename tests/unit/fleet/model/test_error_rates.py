"""Error rates, against cases computed by hand and against brute force."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from fleet.model.measures.error_rates import RankedPairs
from fleet.model.measures.pair_scores import PairScores


def scores_of(genuine: Sequence[float], impostor: Sequence[float]) -> PairScores:
    """Return scores of pairs of subject 0, and of subjects 0 and 1."""
    return PairScores(
        np.array(genuine, dtype=np.float32),
        np.zeros(len(genuine), dtype=np.int32),
        np.array(impostor, dtype=np.float32),
        np.tile(np.array([[0, 1]], dtype=np.int32), (len(impostor), 1)),
        len(impostor),
    )


def curve_of(genuine: Sequence[float], impostor: Sequence[float]):  # type: ignore[no-untyped-def]
    curve = RankedPairs(scores_of(genuine, impostor)).curve()
    assert curve is not None
    return curve


@pytest.mark.parametrize(
    ("genuine", "impostor", "eer"),
    [
        # Apart: a threshold between them makes no error.
        ([0.9, 0.8], [0.2, 0.1], 0.0),
        # The worst: every impostor pair is above every genuine one.
        ([0.2, 0.1], [0.9, 0.8], 1.0),
        # One score for all: the line from (0, 1) to (1, 0) meets the diagonal in the middle.
        ([0.5, 0.5], [0.5, 0.5, 0.5], 0.5),
        # At .5 one of four genuine pairs is missed and one of four impostor pairs matches.
        ([0.9, 0.8, 0.7, 0.4], [0.5, 0.3, 0.2, 0.1], 0.25),
        # From (0, 1/2) at .9 to (1/3, 1/2) at .7 to (1/3, 0) at .6: the diagonal is met at FNMR 1/3.
        ([0.9, 0.6], [0.7, 0.2, 0.1], 1 / 3),
        # A tie of one genuine and one impostor pair: from (0, 1/2) straight to (1/2, 0).
        ([0.9, 0.5], [0.5, 0.1], 0.25),
        # One pair each, in the right order and in the wrong one.
        ([0.6], [0.4], 0.0),
        ([0.4], [0.6], 1.0),
    ],
)
def test_the_eer_is_where_the_joined_points_meet_the_diagonal(
    genuine: list[float], impostor: list[float], eer: float
) -> None:
    assert curve_of(genuine, impostor).eer() == pytest.approx(eer)


@pytest.mark.parametrize(
    ("far", "tar", "threshold"),
    [
        (0.0, 1 / 4, 0.9),
        (0.1, 2 / 4, 0.7),
        (0.19, 2 / 4, 0.7),
        # Two impostor pairs have .6: they match together.
        (0.2, 2 / 4, 0.7),
        (0.3, 3 / 4, 0.6),
        (1.0, 4 / 4, 0.0),
    ],
)
def test_the_tar_is_the_greatest_within_a_far(far: float, tar: float, threshold: float) -> None:
    """Of 10 impostor pairs one has .8 and two have .6, as has a genuine pair."""
    curve = curve_of([0.9, 0.7, 0.6, 0.1], [0.8, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0])
    found, at = curve.tar_at(far)
    assert (found, at) == (tar, pytest.approx(threshold))


def test_no_threshold_is_high_enough_when_the_highest_score_is_an_impostors() -> None:
    assert curve_of([0.5], [0.9, 0.1]).tar_at(0.1) == (0.0, np.inf)


def brute_force(genuine: np.ndarray, impostor: np.ndarray, far: float) -> tuple[float, float]:  # type: ignore[type-arg]
    """Return TAR at `far` and EER by counting at every threshold."""
    points = [(0.0, 1.0)]
    tar = 0.0
    for threshold in sorted({*genuine.tolist(), *impostor.tolist()}, reverse=True):
        matched = sum(score >= threshold for score in impostor.tolist()) / len(impostor)
        missed = sum(score < threshold for score in genuine.tolist()) / len(genuine)
        points.append((matched, missed))
        if matched <= far + 1e-12:
            tar = max(tar, 1 - missed)
    for (far_0, fnmr_0), (far_1, fnmr_1) in pairwise(points):
        if fnmr_1 <= far_1:
            # The line through both points, met with FAR = FNMR.
            slope = (far_1 - far_0) - (fnmr_1 - fnmr_0)
            return tar, far_0 + (far_1 - far_0) * (fnmr_0 - far_0) / slope
    raise AssertionError("the last point accepts everything")


@pytest.mark.parametrize("seed", range(12))
def test_rates_equal_those_of_brute_force(seed: int) -> None:
    """Scores are rounded to few values, so that most of them are ties."""
    random = np.random.default_rng(seed)
    digits = 1 + seed % 3
    genuine = np.round(random.normal(0.6, 0.2, 40), digits).astype(np.float32)
    impostor = np.round(random.normal(0.3, 0.2, 150), digits).astype(np.float32)
    curve = curve_of(genuine.tolist(), impostor.tolist())
    for far in (0.0, 0.01, 0.1, 0.5, 1.0):
        tar, eer = brute_force(genuine, impostor, far)
        assert curve.tar_at(far)[0] == pytest.approx(tar)
        assert curve.eer() == pytest.approx(eer)


def test_a_weight_counts_a_pair_as_often_as_copies_of_it() -> None:
    random = np.random.default_rng(3)
    genuine, impostor = random.random(20).round(1), random.random(50).round(1)
    weights = random.integers(0, 4, 20), random.integers(0, 4, 50)
    weighted = RankedPairs(scores_of(genuine.tolist(), impostor.tolist()))
    # The weights stand in the order of rank.
    ranks = (
        np.argsort(-genuine.astype(np.float32), kind="stable"),
        np.argsort(-impostor.astype(np.float32), kind="stable"),
    )
    curve = weighted.curve(weights[0][ranks[0]], weights[1][ranks[1]])
    copied = curve_of(np.repeat(genuine, weights[0]).tolist(), np.repeat(impostor, weights[1]).tolist())
    assert curve is not None
    assert curve.eer() == pytest.approx(copied.eer())
    for far in (0.01, 0.1, 0.3):
        assert curve.tar_at(far)[0] == pytest.approx(copied.tar_at(far)[0])


def test_without_a_genuine_or_an_impostor_pair_there_is_no_curve() -> None:
    ranked = RankedPairs(scores_of([0.5, 0.6], [0.1]))
    assert ranked.curve(np.zeros(2, np.int64), None) is None
    assert ranked.curve(None, np.zeros(1, np.int64)) is None
