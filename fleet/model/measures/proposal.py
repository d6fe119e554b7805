"""Propose the limits of a space from the scores of photographs.

The chance of a false match is meant per search: a stranger is compared with everyone enrolled, so that one
comparison must err 1 - (1 - far)^(1/n) at most.
"""

import math
from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.spaces import SpaceLimits
from fleet.errors import CannotRunError

from .claims import comparison_far, expected_threshold, pairs_to_claim, shown_threshold
from .pair_scores import Float32, PairScores
from .searches import Searches

# To take two people for one at an enrollment is worse than one wrong event.
_SAFER = 10
# The share of the space between impostor and genuine pairs that the best identity leads by.
_MARGIN_SHARE = 0.1
# A margin that keeps two enrolled people apart may cost this share of the right searches.
_MARGIN_COST = 0.05
_DIGITS = 3


@dataclass(frozen=True)
class ProposedThreshold:
    """A cosine for a FAR of one comparison.

    It `is_shown` by the pairs, or expected by their tail.
    """

    value: float
    far: float
    is_shown: bool


@dataclass(frozen=True)
class LimitsProposal:
    """All limits of a space, and why; `reasons` is by field.

    `is_shown` says whether the pairs are enough to claim the chance of a false match; it takes
    `needed_pairs`. `genuine_share` is the share of genuine pairs within the limit of a match.
    """

    limits: SpaceLimits
    reasons: dict[str, str]
    is_shown: bool
    impostor_pairs: int
    needed_pairs: int
    genuine_share: float


def propose_limits(
    scores: PairScores, searches: Searches, *, people: int, templates: int, far: float
) -> LimitsProposal:
    """Return limits for galleries of `people` with `templates` each.

    `far` is the chance that a stranger at a camera is taken for one of them. Raises CannotRunError for a
    model that does not tell these people apart.
    """
    comparisons = people * templates
    match = _threshold(scores.impostor, comparison_far(far, comparisons))
    same = _threshold(scores.impostor, comparison_far(far / _SAFER, comparisons))
    place = _threshold(scores.impostor, far)
    similarity = _round_up(match.value)
    if similarity >= 1:
        raise CannotRunError(
            f"at a chance of {far:g} per search among {people} people not even equal faces would match: "
            "this model does not tell these people apart"
        )
    margin, margin_reason = _margin(scores, searches, similarity)
    limits = SpaceLimits(
        distance=round(1 - similarity, _DIGITS),
        margin=margin,
        same_person=min(1.0, max(similarity, _round_up(same.value))),
        look_alike=similarity,
        tracked_similarity=similarity,
        tracked_margin=margin,
        tracked_by_position=min(similarity, _round_up(place.value)),
    )
    search = f"a stranger is taken for one of {people} people in {far:g} of searches"
    reasons = {
        "distance": f"{search}: {_say(match)}",
        "margin": margin_reason,
        "same_person": f"a tenth of this chance, since it joins two people: {_say(same)}",
        "look_alike": "from the limit of a match on, the answer is uncertain",
        "tracked_similarity": "as a match: a face is compared with every person seen",
        "tracked_margin": "as the margin of a match",
        "tracked_by_position": f"compared with one person, in the same place: {_say(place)}",
    }
    genuine_share = float((scores.genuine >= np.float32(similarity)).mean())
    needed = pairs_to_claim(match.far)
    return LimitsProposal(limits, reasons, match.is_shown, len(scores.impostor), needed, genuine_share)


def _threshold(impostor: Float32, far: float) -> ProposedThreshold:
    shown = shown_threshold(impostor, far)
    if shown is not None:
        return ProposedThreshold(shown, far, True)
    return ProposedThreshold(expected_threshold(impostor, far), far, False)


def _say(threshold: ProposedThreshold) -> str:
    basis = "shown by the pairs" if threshold.is_shown else "expected by their tail, not shown"
    return f"FAR {threshold.far:.2g} of a comparison, {basis}"


def _margin(scores: PairScores, searches: Searches, similarity: float) -> tuple[float, str]:
    """Return a margin, and why.

    It is a tenth of the way from the mean impostor to the mean genuine pair, and more where that keeps an
    enrolled person from being taken for another at little cost.
    """
    between = max(0.0, float(scores.genuine.mean() - scores.impostor.mean()))
    margin = max(10.0**-_DIGITS, round(between * _MARGIN_SHARE, _DIGITS))
    reason = f"a tenth of the way between impostor and genuine pairs ({between:.3f})"
    known = searches.has_own
    leads = searches.own - searches.other
    right = leads[known & (leads > 0) & (searches.own >= similarity)]
    wrong = -leads[known & (leads <= 0) & (searches.other >= similarity)]
    if not len(wrong) or not len(right):
        return margin, reason
    safe = _round_up(float(wrong.max()) + 10.0**-_DIGITS)
    cost = float((right < safe).mean()) - float((right < margin).mean())
    if safe > margin and cost <= _MARGIN_COST:
        return (
            safe,
            f"no one here is taken for another enrolled person; it costs {cost:.0%} of right searches",
        )
    return margin, reason


def _round_up(value: float) -> float:
    """Return a limit of three digits that is no looser, from 0 on."""
    return max(0.0, float(math.ceil(value * 10**_DIGITS - 1e-9)) / 10.0**_DIGITS)
