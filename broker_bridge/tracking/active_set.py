"""Who is here now: the people seen in the last half minute, in memory, and whose face on a track that is.

The decision is made here, and only here: people from further back are loaded beside the active ones first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import Box, DetectedPerson, ObservedFace, VisitSegment
from broker_bridge.registry.detected_persons.settings import FaceLimits, TrackingSettings

from .centroid_matrix import CentroidMatrix

_ONE_PICTURE = timedelta(seconds=0.1)
# Of one camera; past it, those that are too old to tell anything are dropped.
_MOST_PLACES = 50
# Sum of qualities: some six good faces. More of the same stay change the mean by little.
_WELL_KNOWN = 5.0


@dataclass
class ActivePerson:
    """A detected person in memory: `faces` by space, `merged` those of people who were merged into this one.

    `written` has the faces as MongoDB has them, `stays` the newest piece of the trail by device id, and
    `unwritten` those that MongoDB does not know as they are. Until `is_stored`, nobody may be told of them.
    `checked_weight` is how well the person was known when it was last asked who is enrolled with that face.
    """

    person: DetectedPerson
    faces: dict[str, FaceCentroid]
    merged: tuple[FaceCentroid, ...] = ()
    written: dict[str, FaceCentroid] = field(default_factory=dict)
    stays: dict[str, VisitSegment] = field(default_factory=dict)
    unwritten: dict[tuple[str, datetime], VisitSegment] = field(default_factory=dict)
    is_stored: bool = True
    checked_weight: float = 0.0

    @property
    def global_id(self) -> int:
        return self.person.global_id

    @property
    def weight(self) -> float:
        return sum(face.weight for face in self.faces.values())

    def see(self, seen: ObservedFace, timeout: timedelta) -> None:
        """Count a sighting, for the statistics and the trail."""
        self.person.see(seen, timeout)
        stay = self.stays.get(seen.device_id)
        if stay is None or seen.seen_at - stay.until > timeout:
            stay = VisitSegment(self.global_id, seen.device_id, seen.site_id, seen.seen_at, seen.seen_at, 0)
            self.stays[seen.device_id] = stay
        stay.until = max(stay.until, seen.seen_at)
        stay.detections += 1
        self.unwritten[stay.device_id, stay.since] = stay

    def moved_faces(self) -> list[FaceCentroid]:
        """The faces that MongoDB does not know as they are now."""
        return [
            face
            for space, face in self.faces.items()
            if space not in self.written or face.has_moved(self.written[space])
        ]


@dataclass(frozen=True)
class TrackMatch:
    """Who it is, and what told it: their face, their face where they just were (`stay`), that place alone,
    being enrolled with that face, or that nobody else is like it. `similarity` is the mean cosine. A `sure`
    match is no guess; one by face alone may move the mean."""

    present: ActivePerson
    similarity: float | None
    by: Literal["face", "stay", "position", "enrolled", "new"]
    sure: bool


@dataclass
class _PicturePosition:
    """Where somebody was last seen in a camera's picture; `is_sure`: who it was is no guess, then or a moment
    before. A guess must not make the next one: a look-alike would stay whom one face of theirs was taken for.
    """

    global_id: int
    track_id: str
    box: Box
    captured_at: datetime
    is_sure: bool


class ActiveSet:
    """The people in memory, by global id; `match` answers for a face, exactly."""

    def __init__(self, settings: TrackingSettings) -> None:
        self._settings = settings
        self._here: dict[int, ActivePerson] = {}
        # By dimension too: a space may have another one after the database was restored.
        self._rows: dict[tuple[str, int], CentroidMatrix] = {}
        self._places: dict[str, dict[int, _PicturePosition]] = {}
        self._limits: dict[str, FaceLimits] = {}
        self._lasting = timedelta(seconds=settings.position_seconds)

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[ActivePerson]:
        return iter(list(self._here.values()))

    def __contains__(self, global_id: int) -> bool:
        return global_id in self._here

    def get(self, global_id: int) -> ActivePerson | None:
        return self._here.get(global_id)

    def add(self, present: ActivePerson) -> None:
        self._here[present.global_id] = present
        for face in (*present.faces.values(), *present.merged):
            self._rows_of(face.space, len(face.mean)).add(present.global_id, face.mean)

    def remove(self, global_ids: Iterable[int]) -> None:
        """Forget these people here; what is not written yet is the caller's to write."""
        gone = {global_id for global_id in global_ids if self._here.pop(global_id, None)}
        if not gone:
            return
        for rows in self._rows.values():
            rows.remove(gone)
        for places in self._places.values():
            for global_id in gone & places.keys():
                del places[global_id]

    def note(self, match: TrackMatch, seen: ObservedFace) -> None:
        """Take in a sighting of who was matched: where they are, and what they look like if that is sure."""
        present = match.present
        places = self._places.setdefault(seen.device_id, {})
        if len(places) > _MOST_PLACES:
            for one in [one for one in places.values() if seen.captured_at - one.captured_at > self._lasting]:
                del places[one.global_id]
        before = places.get(present.global_id)
        was_sure = before is not None and before.is_sure and self._is_there(before, seen)
        is_sure = match.sure or match.by in ("new", "enrolled") or was_sure
        place = _PicturePosition(present.global_id, seen.track_id, seen.box, seen.captured_at, is_sure)
        places[present.global_id] = place
        is_good = seen.quality is None or seen.quality >= self._settings.learn_quality
        if is_good and match.by == "enrolled" and seen.space not in present.faces:
            face = present.faces[seen.space] = FaceCentroid.of(seen.space, seen.vector, seen.quality)
            self._rows_of(seen.space, len(face.mean)).add(present.global_id, face.mean)
        elif is_good and match.sure and match.by == "face":
            self._learn(present, seen)

    def _learn(self, present: ActivePerson, seen: ObservedFace) -> None:
        face = present.faces.get(seen.space)
        # A face that is like that of somebody merged into this person says nothing about this person's own.
        if face is None or face.similarity(seen.vector) < self._limits_in(seen.space).similarity:
            return
        before = face.mean.copy()
        face.learn(seen.vector, seen.quality)
        self._rows_of(seen.space, len(face.mean)).move(present.global_id, before, face.mean)

    def match(self, seen: ObservedFace) -> TrackMatch | None:
        """Who of those in memory this is, or None. Whoever is elsewhere in the same picture it is not."""
        rows = self._rows.get((seen.space, len(seen.vector)))
        if rows is None:
            return None
        limits = self._limits_in(seen.space)
        places = self._places.get(seen.device_id, {})
        staying = self._staying(places.values(), seen, limits)
        if staying is not None:
            return staying
        elsewhere = [one.global_id for one in places.values() if _is_elsewhere(one, seen)]
        ranked = rows.nearest_two(seen.vector, elsewhere)
        if ranked is None:
            return None
        (best, similarity), (second, runner_up) = ranked
        if similarity >= limits.similarity:
            return self._by_face(seen, limits, (best, similarity), (second, runner_up))
        here = self._at_this_place(places.values(), seen, elsewhere)
        found = [(rows.similarity(seen.vector, global_id), global_id) for global_id in here]
        nearest = max(found, default=(-1.0, 0))
        if nearest[0] < limits.by_position:
            return None
        return TrackMatch(self._here[nearest[1]], None, "position", sure=False)

    def _staying(
        self, places: Iterable[_PicturePosition], seen: ObservedFace, limits: FaceLimits
    ) -> TrackMatch | None:
        """Whoever was surely there a moment ago, is well known, and is surely seen again.

        Nobody else is looked at then: a thousand people are two megabytes, and most of what cameras say is
        that somebody is still there.
        """
        # Most are on the same track, and need no look at boxes.
        on_track = [one for one in places if one.track_id == seen.track_id]
        for place in on_track or places:
            if not self._was_here(place, seen) or _is_elsewhere(place, seen):
                continue
            present = self._here[place.global_id]
            face = present.faces.get(seen.space)
            if face is None or face.weight < _WELL_KNOWN or len(face.mean) != len(seen.vector):
                continue
            similarity = face.similarity(seen.vector)
            if similarity >= limits.similarity + limits.margin:
                return TrackMatch(present, similarity, "stay", sure=True)
        return None

    def with_user(self, user_id: str, seen: ObservedFace) -> ActivePerson | None:
        """Who in memory is this enrolled person, and not elsewhere in the same picture."""
        places = self._places.get(seen.device_id, {})
        for present in self._here.values():
            place = places.get(present.global_id)
            if present.person.user_id == user_id and not (place and _is_elsewhere(place, seen)):
                return present
        return None

    def _by_face(
        self, seen: ObservedFace, limits: FaceLimits, best: tuple[int, float], second: tuple[int, float]
    ) -> TrackMatch:
        if best[1] - second[1] >= limits.margin:
            is_sure = best[1] >= limits.similarity + limits.margin
            return TrackMatch(self._here[best[0]], best[1], "face", is_sure)
        # Two people look like it: the one who was just there, else the nearer one; nobody learns from it.
        here = self._at_this_place(self._places.get(seen.device_id, {}).values(), seen, ())
        chosen = (
            second if second[0] in here and best[0] not in here and second[1] >= limits.similarity else best
        )
        return TrackMatch(self._here[chosen[0]], chosen[1], "face", sure=False)

    def is_settled(self, match: TrackMatch, seen: ObservedFace) -> bool:
        """Whether nobody who is away need be asked for: the face is sure, or whoever it is was just there."""
        if match.sure or match.by != "face":
            return True
        places = self._places.get(seen.device_id, {})
        return match.present.global_id in self._at_this_place(places.values(), seen, ())

    def _is_there(self, place: _PicturePosition, seen: ObservedFace) -> bool:
        return (
            place.track_id == seen.track_id or place.box.overlap(seen.box) >= self._settings.position_overlap
        )

    def _was_here(self, place: _PicturePosition, seen: ObservedFace) -> bool:
        """Whether whoever it was there surely was, a moment ago, in the place or on the track of `seen`."""
        return (
            place.is_sure
            and self._is_there(place, seen)
            and abs(seen.captured_at - place.captured_at) <= self._lasting
        )

    def _at_this_place(
        self, places: Iterable[_PicturePosition], seen: ObservedFace, elsewhere: Iterable[int]
    ) -> set[int]:
        """Who was surely in that place of this camera's picture a moment ago, or on the same track."""
        return {
            one.global_id for one in places if one.global_id not in elsewhere and self._was_here(one, seen)
        }

    def _limits_in(self, space: str) -> FaceLimits:
        limits = self._limits.get(space)
        if limits is None:
            limits = self._limits[space] = self._settings.limits_in(space)
        return limits

    def _rows_of(self, space: str, dimension: int) -> CentroidMatrix:
        rows = self._rows.get((space, dimension))
        if rows is None:
            rows = self._rows[space, dimension] = CentroidMatrix(dimension)
        return rows


def _is_elsewhere(place: _PicturePosition, seen: ObservedFace) -> bool:
    """Whether somebody has another track in the very picture of `seen`: nobody is twice in one."""
    return place.track_id != seen.track_id and abs(seen.captured_at - place.captured_at) < _ONE_PICTURE
