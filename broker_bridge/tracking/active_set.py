"""Keep the active persons in memory and match observed faces against them."""

from collections.abc import Iterable, Iterator

from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings

from .active_person import ActivePerson
from .centroid_matrix import CentroidMatrix
from .match_rules import MATCH_RULES, MatchContext, TrackMatch
from .picture import PicturePositions
from .tracked_limits import TrackedLimits


class ActiveSet:
    """The detected persons in memory, by global id.

    `match` is exact. It is the only place where a face is compared with persons in memory: the candidates of
    a lookup are added first.
    """

    def __init__(self, settings: TrackingSettings, limits: TrackedLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._active: dict[int, ActivePerson] = {}
        # By dimension too: a space may have another one after the database was restored.
        self._matrices: dict[tuple[str, int], CentroidMatrix] = {}
        self._pictures = PicturePositions(settings)

    def __len__(self) -> int:
        return len(self._active)

    def __iter__(self) -> Iterator[ActivePerson]:
        return iter(list(self._active.values()))

    def __contains__(self, global_id: int) -> bool:
        return global_id in self._active

    def get(self, global_id: int) -> ActivePerson | None:
        return self._active.get(global_id)

    def add(self, active: ActivePerson) -> None:
        self._active[active.global_id] = active
        for centroid in (*active.centroids.values(), *active.merged_centroids):
            self._matrix_for(centroid).add(active.global_id, centroid.mean)

    def remove(self, global_ids: Iterable[int]) -> None:
        """Drop persons from memory; the caller writes their counters first."""
        removed = {global_id for global_id in global_ids if self._active.pop(global_id, None)}
        if not removed:
            return
        for matrix in self._matrices.values():
            matrix.remove(removed)
        self._pictures.remove(removed)

    def match(self, observed: ObservedFace) -> TrackMatch | None:
        """Return the person in memory that `observed` belongs to, or None.

        A person on another track of the same picture never matches.
        """
        matrix = self._matrices.get((observed.space, len(observed.vector)))
        if matrix is None:
            return None
        limits = self._limits.in_space(observed.space)
        context = MatchContext(observed, limits, self._active, matrix, self._pictures)
        for rule in MATCH_RULES:
            match = rule(context)
            if match is not None:
                return match
        return None

    def find_linked(self, user_id: str, observed: ObservedFace) -> ActivePerson | None:
        """Return the person linked to `user_id` that is not elsewhere in the picture."""
        positions = self._pictures.on_camera(observed.device_id)
        for active in self._active.values():
            position = positions.get(active.global_id)
            is_elsewhere = position is not None and position.is_elsewhere(observed)
            if active.record.user_id == user_id and not is_elsewhere:
                return active
        return None

    def record_sighting(self, match: TrackMatch, observed: ObservedFace) -> None:
        """Store the position of the matched person; a sure match moves its centroid."""
        active = match.active
        is_sure = match.is_sure or match.by in ("new", "enrolled")
        self._pictures.record(active.global_id, observed, is_sure=is_sure)
        if observed.quality is not None and observed.quality < self._settings.learn_quality:
            return
        if match.by == "enrolled" and observed.space not in active.centroids:
            centroid = FaceCentroid.from_vector(observed.space, observed.vector, observed.quality)
            active.centroids[observed.space] = centroid
            self._matrix_for(centroid).add(active.global_id, centroid.mean)
        elif match.by == "face" and match.is_sure:
            self._learn(active, observed)

    def _learn(self, active: ActivePerson, observed: ObservedFace) -> None:
        centroid = active.centroids.get(observed.space)
        # A face that matched another member of the merge group must not move the person's own centroid.
        least = self._limits.in_space(observed.space).tracked_similarity
        if centroid is None or centroid.similarity(observed.vector) < least:
            return
        before = centroid.mean.copy()
        centroid.learn(observed.vector, observed.quality)
        self._matrix_for(centroid).move(active.global_id, before, centroid.mean)

    def _matrix_for(self, centroid: FaceCentroid) -> CentroidMatrix:
        key = centroid.space, len(centroid.mean)
        matrix = self._matrices.get(key)
        if matrix is None:
            matrix = self._matrices[key] = CentroidMatrix(len(centroid.mean))
        return matrix
