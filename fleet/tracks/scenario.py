"""Plays a course: what its cameras would tell the tracker, in the order in which it would arrive."""

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import Vector

from .course import OBSERVED_SECONDS, Course
from .faces import SimulatedFaces
from .walks import Box, Path, Visit, arrange, walk

# How long a camera that has lost a track takes to find the person again.
_LOST_SECONDS = (1.0, 4.0)


@dataclass(frozen=True)
class SimulatedSighting:
    """An observation and whose it is. Seconds since the course began: `seen` in truth, `captured` by the
    camera's clock, `arrives` at the backend. `vector` is float32[d] of unit length."""

    person: int
    camera: int
    track_id: str
    box: Box
    vector: Vector
    quality: float
    seen: float
    captured: float
    arrives: float


@dataclass
class _View:
    """A visit as one camera sees it."""

    camera: int
    path: Path
    track_id: str
    found_at: float


def play(course: Course, random: np.random.Generator) -> Iterator[SimulatedSighting]:
    """The observations of `course` by time of arrival; the same for the same state of `random`.

    Memory holds the people, and the observations that are on their way.
    """
    stage = _Stage(course, random)
    # Whoever starts first is found by all walks being asked for their first visit.
    due = [(visit.start, person, visit) for person, visit in stage.first_visits()]
    heapq.heapify(due)
    under_way: list[tuple[float, int, SimulatedSighting]] = []
    numbers = itertools.count()
    while due:
        now, person, visit = heapq.heappop(due)
        while under_way and under_way[0][0] <= now:
            yield heapq.heappop(under_way)[2]
        for sighting in stage.look(person, visit, now):
            heapq.heappush(under_way, (sighting.arrives, next(numbers), sighting))
        following = stage.following(person, visit, now)
        if following is not None:
            heapq.heappush(due, following)
    while under_way:
        yield heapq.heappop(under_way)[2]


class _Stage:
    def __init__(self, course: Course, random: np.random.Generator) -> None:
        self._course = course
        # Each with a source of its own: who looks how does not change where anybody walks.
        self._walking, looks, self._wire, clocks = random.spawn(4)
        self._faces = SimulatedFaces(course, looks)
        self._clock_offsets = clocks.uniform(-course.clock_skew, course.clock_skew, course.cameras)
        self._views: dict[int, list[_View]] = {}
        self._tracks = [itertools.count() for _ in range(course.cameras)]
        self._walks: list[Iterator[Visit]] = []

    def first_visits(self) -> Iterator[tuple[int, Visit]]:
        appointments = arrange(self._course, self._walking)
        ways = self._course.likely_ways()
        for person, source in enumerate(self._walking.spawn(self._course.people)):
            visits = walk(self._course, ways, appointments.get(person, ()), source)
            self._walks.append(visits)
            first = next(visits, None)
            if first is not None:
                self._enter(person, first)
                yield person, first

    def _enter(self, person: int, visit: Visit) -> None:
        cameras = [visit.camera]
        partner = self._course.partner(visit.camera)
        if partner is not None and self._walking.random() < self._course.overlap:
            cameras.append(partner)
        seconds = visit.end - visit.start
        self._views[person] = [
            _View(camera, Path.through(seconds, self._walking), self._new_track(camera), visit.start)
            for camera in cameras
        ]

    def _new_track(self, camera: int) -> str:
        return f"walk-{next(self._tracks[camera])}"

    def look(self, person: int, visit: Visit, now: float) -> Iterator[SimulatedSighting]:
        """What the cameras tell of `person` now; lost ones are left out."""
        course, share = self._course, (now - visit.start) / max(visit.end - visit.start, OBSERVED_SECONDS)
        for view in self._views[person]:
            if now < view.found_at:
                continue
            vector, quality = self._faces.look(person)
            sighting = SimulatedSighting(
                person=person,
                camera=view.camera,
                track_id=view.track_id,
                box=view.path.at(min(share, 1.0)),
                vector=vector,
                quality=quality,
                seen=now,
                captured=now + float(self._clock_offsets[view.camera]),
                arrives=now + float(self._wire.uniform(0, course.delay)),
            )
            if self._walking.random() < course.break_share:
                view.track_id = self._new_track(view.camera)
                view.found_at = now + self._walking.uniform(*_LOST_SECONDS)
            if self._wire.random() >= course.loss:
                yield sighting

    def following(self, person: int, visit: Visit, now: float) -> tuple[float, int, Visit] | None:
        """When to look at `person` next, on this visit or another; None when they are gone."""
        then = round(now + OBSERVED_SECONDS, 3)
        if then <= visit.end:
            return then, person, visit
        following = next(self._walks[person], None)
        if following is None:
            return None
        self._enter(person, following)
        return following.start, person, following
