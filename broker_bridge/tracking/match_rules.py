"""Decide which active person an observed face belongs to, by a table of rules."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from broker_bridge.contract.spaces import SpaceLimits
from broker_bridge.registry.detected_persons.model import ObservedFace

from .active_person import ActivePerson
from .centroid_matrix import CentroidMatrix
from .picture import PicturePositions

# Sum of qualities: some six good faces. More sightings of one visit change the centroid by little.
_WELL_KNOWN_WEIGHT = 5.0


class TrackMatch(NamedTuple):
    """The active person of an observation, and the rule that found it.

    `similarity` is the mean cosine to the faces of the person. `by` is also the suffix of a counter: `stay`
    is a continuity match, `enrolled` and `new` are the tracker's own. `is_sure`: the match is no guess; a
    sure match by face moves the centroid. `needs_lookup`: a person that is not in memory may be nearer.
    """

    active: ActivePerson
    similarity: float | None
    by: Literal["face", "stay", "position", "enrolled", "new"]
    is_sure: bool = False
    needs_lookup: bool = False


class MatchContext:
    """The facts about one observation that rules share; each is computed at most once.

    Written out instead of `functools.cached_property`, whose lock (until Python 3.12) costs a microsecond.
    """

    __slots__ = (
        "_elsewhere",
        "_here",
        "_nearest_two",
        "active",
        "limits",
        "matrix",
        "observed",
        "pictures",
        "positions",
    )

    def __init__(
        self,
        observed: ObservedFace,
        limits: SpaceLimits,
        active: Mapping[int, ActivePerson],
        matrix: CentroidMatrix,
        pictures: PicturePositions,
    ) -> None:
        self.observed = observed
        self.limits = limits
        self.active = active
        self.matrix = matrix
        self.pictures = pictures
        self.positions = pictures.on_camera(observed.device_id).values()
        self._elsewhere: list[int] | None = None
        self._here: set[int] | None = None
        self._nearest_two: tuple[tuple[int, float], tuple[int, float]] | None = None

    @property
    def elsewhere(self) -> list[int]:
        """The global ids on other tracks of the same picture."""
        if self._elsewhere is None:
            observed = self.observed
            self._elsewhere = [one.global_id for one in self.positions if one.is_elsewhere(observed)]
        return self._elsewhere

    @property
    def here(self) -> set[int]:
        """The global ids that were surely in this place, or on this track, a moment ago."""
        if self._here is None:
            elsewhere, observed, was_here = self.elsewhere, self.observed, self.pictures.was_here
            self._here = {
                one.global_id
                for one in self.positions
                if one.global_id not in elsewhere and was_here(one, observed)
            }
        return self._here

    @property
    def nearest_two(self) -> tuple[tuple[int, float], tuple[int, float]]:
        """Global id and mean cosine of the two nearest persons that are not elsewhere.

        (0, -1) stands for a missing one.
        """
        if self._nearest_two is None:
            nearest = self.matrix.nearest_two(self.observed.vector, self.elsewhere)
            self._nearest_two = nearest or ((0, -1.0), (0, -1.0))
        return self._nearest_two


def match_continuity(context: MatchContext) -> TrackMatch | None:
    """Match a well-known person that surely was here and surely is seen again.

    No other person is compared then: the centroids of a thousand persons are two megabytes, and most
    observations continue a track.
    """
    positions = context.positions
    if not positions:
        return None
    observed, limits = context.observed, context.limits
    # Most are on the same track, which spares the comparison of boxes.
    on_track = [one for one in positions if one.track_id == observed.track_id]
    for position in on_track or positions:
        if not context.pictures.was_here(position, observed) or position.is_elsewhere(observed):
            continue
        active = context.active[position.global_id]
        centroid = active.centroids.get(observed.space)
        if centroid is None or centroid.weight < _WELL_KNOWN_WEIGHT:
            continue
        if len(centroid.mean) != len(observed.vector):
            continue
        similarity = centroid.similarity(observed.vector)
        if similarity >= limits.tracked_similarity + limits.tracked_margin:
            return TrackMatch(active, similarity, "stay", is_sure=True)
    return None


def match_clear_face(context: MatchContext) -> TrackMatch | None:
    """Match the nearest person if it leads the second by the margin."""
    limits = context.limits
    (best, similarity), (_, runner_up) = context.nearest_two
    if similarity < limits.tracked_similarity or similarity - runner_up < limits.tracked_margin:
        return None
    is_sure = similarity >= limits.tracked_similarity + limits.tracked_margin
    needs_lookup = not is_sure and best not in context.here
    return TrackMatch(context.active[best], similarity, "face", is_sure, needs_lookup)


def match_ambiguous_face(context: MatchContext) -> TrackMatch | None:
    """Match one of two similar persons: the one that was here, else the nearer."""
    limits = context.limits
    best, second = context.nearest_two
    if best[1] < limits.tracked_similarity:
        return None
    here = context.here
    prefers_second = second[0] in here and best[0] not in here and second[1] >= limits.tracked_similarity
    global_id, similarity = second if prefers_second else best
    return TrackMatch(context.active[global_id], similarity, "face", needs_lookup=global_id not in here)


def match_position(context: MatchContext) -> TrackMatch | None:
    """Match the most similar person that was here, down to a lower similarity."""
    if not context.here:
        return None
    vector = context.observed.vector
    similarities = [(context.matrix.similarity(vector, global_id), global_id) for global_id in context.here]
    similarity, global_id = max(similarities)
    if similarity < context.limits.tracked_by_position:
        return None
    return TrackMatch(context.active[global_id], None, "position")


MATCH_RULES: tuple[Callable[[MatchContext], TrackMatch | None], ...] = (
    match_continuity,
    match_clear_face,
    match_ambiguous_face,
    match_position,
)
"""In order: the first rule with an answer decides."""
