"""Generate a course's observations in the order of their arrival."""

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import Vector

from .course import OBSERVED_SECONDS, Course
from .faces import SimulatedFaces
from .walks import Box, Path, Visit, arrange_appointments, walk_cameras

# The time between the end of a broken track and the walker's next one on the same camera.
_TRACK_GAP_SECONDS = (1.0, 4.0)


@dataclass(frozen=True)
class SimulatedSighting:
    """An observation with the walker that it shows.

    Times are seconds since the start of the course: `seen` is the true time, `captured` the time by the
    camera's clock, `arrives` the time at the backend. `vector` is float32[d] of unit length.
    """

    walker: int
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


def play_course(course: Course, random: np.random.Generator) -> Iterator[SimulatedSighting]:
    """Yield the observations of `course` by time of arrival.

    The same state of `random` gives the same observations. Memory holds the walkers and the observations that
    have not arrived yet.
    """
    building = _Building(course, random)
    due = [(visit.start, walker, visit) for walker, visit in building.first_visits()]
    heapq.heapify(due)
    under_way: list[tuple[float, int, SimulatedSighting]] = []
    numbers = itertools.count()
    while due:
        now, walker, visit = heapq.heappop(due)
        while under_way and under_way[0][0] <= now:
            yield heapq.heappop(under_way)[2]
        for sighting in building.observe_walker(walker, visit, now):
            heapq.heappush(under_way, (sighting.arrives, next(numbers), sighting))
        following = building.next_observation(walker, visit, now)
        if following is not None:
            heapq.heappush(due, following)
    while under_way:
        yield heapq.heappop(under_way)[2]


class _Building:
    def __init__(self, course: Course, random: np.random.Generator) -> None:
        self._course = course
        # Separate generators: drawing more faces does not change the walks.
        self._walking, faces, self._wire, clocks = random.spawn(4)
        self._faces = SimulatedFaces(course, faces)
        self._clock_offsets = clocks.uniform(-course.clock_skew, course.clock_skew, course.cameras)
        self._views: dict[int, list[_View]] = {}
        self._tracks = [itertools.count() for _ in range(course.cameras)]
        self._walks: list[Iterator[Visit]] = []

    def first_visits(self) -> Iterator[tuple[int, Visit]]:
        appointments = arrange_appointments(self._course, self._walking)
        transition_shares = self._course.transition_matrix()
        for walker, source in enumerate(self._walking.spawn(self._course.walkers)):
            visits = walk_cameras(self._course, transition_shares, appointments.get(walker, ()), source)
            self._walks.append(visits)
            first = next(visits, None)
            if first is not None:
                self._enter(walker, first)
                yield walker, first

    def _enter(self, walker: int, visit: Visit) -> None:
        cameras = [visit.camera]
        partner = self._course.partner(visit.camera)
        if partner is not None and self._walking.random() < self._course.overlap:
            cameras.append(partner)
        seconds = visit.end - visit.start
        self._views[walker] = [
            _View(camera, Path.through(seconds, self._walking), self._new_track(camera), visit.start)
            for camera in cameras
        ]

    def _new_track(self, camera: int) -> str:
        return f"walk-{next(self._tracks[camera])}"

    def observe_walker(self, walker: int, visit: Visit, now: float) -> Iterator[SimulatedSighting]:
        """Yield the observations of `walker` at `now`; lost ones are left out."""
        course, share = self._course, (now - visit.start) / max(visit.end - visit.start, OBSERVED_SECONDS)
        for view in self._views[walker]:
            if now < view.found_at:
                continue
            vector, quality = self._faces.sample(walker)
            sighting = SimulatedSighting(
                walker=walker,
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
                view.found_at = now + self._walking.uniform(*_TRACK_GAP_SECONDS)
            if self._wire.random() >= course.loss:
                yield sighting

    def next_observation(self, walker: int, visit: Visit, now: float) -> tuple[float, int, Visit] | None:
        """Return when to observe `walker` next, on this visit or the following.

        None after the last one.
        """
        then = round(now + OBSERVED_SECONDS, 3)
        if then <= visit.end:
            return then, walker, visit
        following = next(self._walks[walker], None)
        if following is None:
            return None
        self._enter(walker, following)
        return following.start, walker, following
