"""Compute what an evaluation says of one model, from the faces of a set of photos."""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord
from fleet.errors import CannotRunError
from fleet.model.faces.photo_set import LeftOut, ListedPairs
from fleet.model.faces.sampling import SampledFaces
from fleet.model.measures.error_rates import ErrorCurve, RankedPairs
from fleet.model.measures.intervals import Interval, bootstrap
from fleet.model.measures.pair_scores import Float32, PairScores, score_against, score_listed, score_pairs
from fleet.model.measures.searches import Searches, SearchOutcome, search_all

FARS = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over people.

    None if there are too few people for an interval.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class TarAtFar:
    """The TAR at `far`, and the threshold.

    Without an `estimate` the impostor pairs are fewer than `needed_pairs`, 1 / `far`. Without a `threshold`
    no score is high enough for this FAR.
    """

    far: float
    needed_pairs: int
    estimate: Estimate | None
    threshold: float | None


@dataclass(frozen=True)
class Spread:
    """Mean, least and greatest cosine of pairs."""

    mean: float
    min: float
    max: float


@dataclass(frozen=True)
class Comparison:
    """The figures of one way to compare faces.

    `rank1` is None for lists of pairs, and `outcome` also for a space without limits. `compared` are the
    impostor pairs that were drawn of all.
    """

    people: int
    faces: int
    genuine_pairs: int
    impostor_pairs: int
    compared: int
    rank1: Estimate | None
    eer: Estimate
    tar: tuple[TarAtFar, ...]
    genuine: Spread
    impostor: Spread
    outcome: SearchOutcome | None


@dataclass(frozen=True)
class PhotoCounts:
    """What became of the photos; the reasons are counted."""

    read: int
    found: int
    passed: int
    left_out: dict[str, int]
    not_found: dict[str, int]
    gated: dict[str, int]


@dataclass(frozen=True)
class Evaluation:
    """All figures, in the form of the JSON file."""

    model: dict[str, Any]
    photos: PhotoCounts
    camera: Comparison
    enrolled: Comparison | None
    same_photo: Spread | None
    limits: SpaceLimits | None
    milliseconds: dict[str, float]
    left_out: tuple[LeftOut, ...]
    unlike: tuple[tuple[str, str, float], ...]
    alike: tuple[tuple[str, str, float], ...]
    clips: SearchOutcome | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        document = asdict(self)
        document["limits"] = self.limits.model_dump() if self.limits else None
        return document


@dataclass(frozen=True)
class MeasuredScores:
    """Scores and curve of the comparison of cameras, for the picture."""

    scores: PairScores
    curve: ErrorCurve


@dataclass(frozen=True)
class EvaluationPlan:
    """How to compute: draws of the bootstrap, and what to call after each."""

    resamples: int
    tick: Callable[[], None] = lambda: None
    seed: int = 0


def evaluate_faces(
    faces: SampledFaces, pairs: ListedPairs | None, record: SpaceRecord | None, plan: EvaluationPlan
) -> tuple[Evaluation, MeasuredScores]:
    """Return the figures of `faces`; `pairs` restricts them to listed pairs.

    Raises CannotRunError if too few faces are left for a genuine and an impostor pair.
    """
    limits = record.limits if record else None
    scores = _listed_scores(faces, pairs) if pairs else score_pairs(faces.vectors, faces.subjects)
    check_pairs(scores, faces)
    searches = None if pairs else search_all(faces.vectors, faces.vectors, faces.subjects)
    camera, curve = _compare(scores, searches, faces, limits, plan)
    enrolled, same_photo = None, None
    if not pairs:
        enrolled, same_photo = _compare_enrolled(faces, limits, plan)
    evaluation = Evaluation(
        model={},
        photos=_count_photos(faces),
        camera=camera,
        enrolled=enrolled,
        same_photo=same_photo,
        limits=limits,
        milliseconds={stage: statistics.median(spent) for stage, spent in faces.milliseconds.items()},
        left_out=faces.left_out,
        unlike=() if pairs else _extremes(faces, genuine=True),
        alike=() if pairs else _extremes(faces, genuine=False),
    )
    return evaluation, MeasuredScores(scores, curve)


def _count_photos(faces: SampledFaces) -> PhotoCounts:
    left_out: dict[str, int] = {}
    for item in faces.left_out:
        left_out[item.code] = left_out.get(item.code, 0) + 1
    gated = sum(faces.gated.values())
    return PhotoCounts(
        faces.read,
        len(faces.names) + gated,
        len(faces.names),
        left_out,
        dict(faces.not_found),
        dict(faces.gated),
    )


def _listed_scores(faces: SampledFaces, pairs: ListedPairs) -> PairScores:
    """Return the scores of the listed pairs of which both photos have a vector."""
    rows = {position: row for row, position in enumerate(faces.positions)}

    def present(listed: tuple[tuple[int, int], ...]) -> "np.ndarray[tuple[int, int], np.dtype[np.int32]]":
        kept = [(rows[one], rows[two]) for one, two in listed if one in rows and two in rows]
        return np.array(kept, dtype=np.int32).reshape(-1, 2)

    return score_listed(faces.vectors, faces.subjects, present(pairs.genuine), present(pairs.impostor))


def check_pairs(scores: PairScores, faces: SampledFaces) -> None:
    """Raise CannotRunError if there is no genuine or no impostor pair."""
    if len(scores.genuine) and len(scores.impostor):
        return
    people = len(set(faces.subjects.tolist()))
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in (faces.not_found + faces.gated).most_common(3)
    )
    raise CannotRunError(
        f"of {faces.read} photos {len(faces.names)} have a usable face, of {people} people"
        + (f" ({reasons})" if reasons else "")
        + ": expected two people, and two photos of at least one"
    )


def _compare(
    scores: PairScores,
    searches: Searches | None,
    faces: SampledFaces,
    limits: SpaceLimits | None,
    plan: EvaluationPlan,
) -> tuple[Comparison, ErrorCurve]:
    ranked = RankedPairs(scores)
    # Cameras and enrollments compare each two pictures twice, which shows no more than once.
    pictures = len(scores.impostor) // (2 if scores.is_each_way else 1)
    curve = ranked.curve()
    if curve is None:
        raise ValueError("expected a genuine and an impostor pair, got none")
    count = int(faces.subjects.max()) + 1
    hits, searched = np.zeros(count, np.int64), np.zeros(count, np.int64)
    if searches is not None:
        hits = np.bincount(searches.subjects[searches.hits], minlength=count)
        searched = np.bincount(searches.subjects[searches.has_own], minlength=count)
    found = bootstrap(ranked, FARS, hits, searched, resamples=plan.resamples, seed=plan.seed, tick=plan.tick)
    rank1 = None if searches is None else Estimate(int(hits.sum()) / int(searched.sum()), found.rank1)
    comparison = Comparison(
        people=len(set(faces.subjects.tolist())),
        faces=len(faces.names),
        genuine_pairs=len(scores.genuine),
        impostor_pairs=scores.impostor_pairs,
        compared=len(scores.impostor),
        rank1=rank1,
        eer=Estimate(curve.eer(), found.eer),
        tar=tuple(
            _tar_at(far, curve, interval, pictures) for far, interval in zip(FARS, found.tar, strict=True)
        ),
        genuine=_spread(scores.genuine),
        impostor=_spread(scores.impostor),
        outcome=searches.outcome(limits) if searches is not None and limits is not None else None,
    )
    return comparison, curve


def _tar_at(far: float, curve: ErrorCurve, interval: Interval | None, pairs: int) -> TarAtFar:
    needed = round(1 / far)
    if pairs < needed:
        return TarAtFar(far, needed, None, None)
    tar, threshold = curve.tar_at(far)
    return TarAtFar(far, needed, Estimate(tar, interval), threshold if math.isfinite(threshold) else None)


def _compare_enrolled(
    faces: SampledFaces, limits: SpaceLimits | None, plan: EvaluationPlan
) -> tuple[Comparison | None, Spread | None]:
    """Compare cameras with enrolled photos, and each photo with itself."""
    both = faces.select(np.flatnonzero(faces.enrolled.any(axis=1)).tolist())
    scores = score_against(both.vectors, both.enrolled, both.subjects)
    if not (len(scores.genuine) and len(scores.impostor)):
        return None, None
    searches = search_all(both.vectors, both.enrolled, both.subjects)
    comparison, _ = _compare(scores, searches, both, limits, plan)
    return comparison, _spread(np.einsum("ij,ij->i", both.vectors, both.enrolled))


def _spread(cosines: Float32) -> Spread:
    return Spread(float(cosines.mean()), float(cosines.min()), float(cosines.max()))


_SHOWN = 3


def _extremes(faces: SampledFaces, *, genuine: bool) -> tuple[tuple[str, str, float], ...]:
    """Return the least similar genuine, or the most similar impostor pairs.

    They show photos in a wrong folder.
    """
    found: list[tuple[float, int, int]] = []
    for row in range(len(faces.names) - 1):
        same = faces.subjects[row + 1 :] == faces.subjects[row]
        columns = np.flatnonzero(same if genuine else ~same)
        if not len(columns):
            continue
        cosines = faces.vectors[row + 1 :][columns] @ faces.vectors[row]
        keys = cosines if genuine else -cosines
        best = np.argsort(keys, kind="stable")[:_SHOWN]
        found += [(float(keys[at]), row, row + 1 + int(columns[at])) for at in best]
        found = sorted(found)[:_SHOWN]
    return tuple((faces.names[one], faces.names[two], key if genuine else -key) for key, one, two in found)
