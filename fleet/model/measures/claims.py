"""Say what a number of pairs can show, and what a search asks of a comparison."""

import math

import numpy as np

from .pair_scores import Float32

RULE_OF_THREE = 3
"""No error among n comparisons shows a rate of at most 3/n, at 95 % confidence."""
_CONFIDENCE = 0.95


def comparison_far(search_far: float, comparisons: int) -> float:
    """Return the FAR of one comparison whose chance per search is `search_far`.

    1 - (1 - far)^comparisons = search_far.
    """
    return -math.expm1(math.log1p(-search_far) / comparisons)


def search_far(comparison: float, comparisons: int) -> float:
    """Return the chance of a false match in a search: 1 - (1 - far)^n."""
    return -math.expm1(math.log1p(-comparison) * comparisons) if comparison < 1 else 1.0


def pairs_to_claim(far: float) -> int:
    """Return how many impostor pairs without an error show a FAR of at most `far`."""
    return math.ceil(RULE_OF_THREE / far)


def upper_bound(errors: int, pairs: int) -> float:
    """Return the FAR that `errors` of `pairs` stay under, at 95 % confidence.

    The bound of a Poisson count (Garwood 1936), which holds for rare errors; for no error it is the rule of
    three. Pairs that share people say less than independent ones.
    """
    counts = np.arange(errors + 1)
    log_factorials = np.cumsum(np.log(np.maximum(counts, 1)))
    low, high = 0.0, errors + 10.0 + 5.0 * math.sqrt(errors + 1)
    for _ in range(60):
        mean = (low + high) / 2
        # The probability of at most so many errors where `mean` are expected.
        chance = float(np.exp(counts * math.log(mean) - mean - log_factorials).sum())
        low, high = (mean, high) if chance > 1 - _CONFIDENCE else (low, mean)
    return min(1.0, high / pairs)


def shown_threshold(impostor: Float32, far: float) -> float | None:
    """Return the lowest score above which the FAR is shown to be at most `far`.

    The threshold lies just above an impostor score, so that it does not match. None if the pairs are too few.
    """
    pairs = len(impostor)
    if not pairs or upper_bound(0, pairs) > far:
        return None
    ranked = np.sort(impostor.astype(np.float64))[::-1]
    low, high = 0, min(pairs - 1, int(far * pairs) + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if upper_bound(middle, pairs) <= far else (low, middle - 1)
    return _just_above(ranked[low])


def expected_threshold(impostor: Float32, far: float) -> float:
    """Return the score above which more pairs are expected to have this FAR.

    An exponential tail continues the scores beyond their ninth decile: excesses over a high threshold have
    such a tail, or a lighter one where scores are bounded (Pickands 1975). It is never below the greatest
    impostor score for an error rarer than one of all pairs.
    """
    scores = np.sort(impostor.astype(np.float64))[::-1]
    tail = max(2, math.ceil(len(scores) / 10))
    start = float(scores[min(tail, len(scores) - 1)])
    spread = float((scores[:tail] - start).mean())
    reached = start + spread * math.log(max(1.0, tail / (far * len(scores))))
    if far * len(scores) < 1:
        return max(reached, _just_above(scores[0]))
    return max(reached, _just_above(scores[min(len(scores) - 1, int(far * len(scores)))]))


def _just_above(score: float) -> float:
    """Return the next cosine as cameras compute them, in 32 bits."""
    return float(np.nextafter(np.float32(score), np.float32(2)))
