"""Play a course to a running fleet in real time and record the tracker's answers."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import Observation
from fleet.errors import CannotRunError
from fleet.report import ProgressBar

from .cameras import TrackerAnswer
from .course import FRAME_SIZE, Course
from .metrics import TrackingTally
from .scenario import SimulatedSighting, play_course

_PROBE_TRACK_ID = "roll-call"
_PROBE_SECONDS = 15.0
_AGAIN_SECONDS = 0.5
# After the last observation: the run ends when no answer arrives for so long.
_QUIET_SECONDS = 2.0


class CameraLink(Protocol):
    """The part of `SimulatedCameras` that a trial uses."""

    @property
    def broker(self) -> str: ...

    def send_observation(self, camera: int, observation: Observation) -> None: ...

    def receive_answer(self, seconds: float) -> TrackerAnswer | None: ...


@dataclass(frozen=True)
class Pace:
    """The speed of a run: `speed` seconds of the course pass in one.

    `clock` is monotonic seconds.
    """

    speed: float
    clock: Callable[[], float]
    utc_now: Callable[[], datetime]


class Trial:
    """Play `course` through `cameras`.

    `tally` has the result, also of an interrupted run; `delays` has the seconds from each answered
    observation to its answer.
    """

    def __init__(self, course: Course, cameras: CameraLink, space: str, pace: Pace) -> None:
        self._course = course
        self._cameras = cameras
        self._space = space
        self._pace = pace
        # An answer names a track, not an observation: it belongs to the first one that waits.
        self._waiting: dict[tuple[int, str], deque[tuple[SimulatedSighting, float]]] = defaultdict(deque)
        self.tally = TrackingTally(course.look_alike_group)
        self.delays: list[float] = []
        self.counts: Counter[str] = Counter()
        self.global_ids: set[int] = set()

    def await_tracker(self, random: np.random.Generator) -> None:
        """Publish one face on each camera until the tracker has answered all of them.

        From then on the tracker knows the cameras and their space. Raises CannotRunError for cameras without
        an answer after 15 seconds.
        """
        face = normalise(random.standard_normal(self._course.dimension), self._course.dimension)
        missing = set(range(self._course.cameras))
        deadline = self._pace.clock() + _PROBE_SECONDS
        while missing:
            if self._pace.clock() >= deadline:
                raise CannotRunError(
                    f"no tracker answers {len(missing)} of {self._course.cameras} cameras: is a bridge "
                    f"connected to the broker at {self._cameras.broker}, and are the cameras registered for "
                    "this site (or WFM_BRIDGE__AUTO_REGISTER set)?"
                )
            for camera in sorted(missing):
                self._cameras.send_observation(camera, self._probe_observation(face))
            again = self._pace.clock() + _AGAIN_SECONDS
            while missing and (left := again - self._pace.clock()) > 0:
                answer = self._cameras.receive_answer(left)
                if answer is not None and answer.assignment.track_id == _PROBE_TRACK_ID:
                    self.global_ids.add(answer.assignment.global_id)
                    missing.discard(answer.camera)

    def _probe_observation(self, face: bytes) -> Observation:
        return Observation(
            track_id=_PROBE_TRACK_ID,
            bbox=[100.0, 150.0, 100.0, 250.0],
            frame_size=list(FRAME_SIZE),
            space=self._space,
            vector=face,
            quality=1.0,
            captured_at=self._pace.utc_now(),
        )

    def run_course(self, random: np.random.Generator, bar: ProgressBar) -> None:
        """Play the course and wait for the last answers.

        `bar` counts the course's seconds.
        """
        clock, speed = self._pace.clock, self._pace.speed
        start, started_at = clock(), self._pace.utc_now()
        for sighting in play_course(self._course, random):
            due = start + sighting.arrives / speed
            while (answer := self._cameras.receive_answer(due - clock())) is not None or clock() < due:
                if answer is not None:
                    self._record_answer(answer)
            self._cameras.send_observation(sighting.camera, self._observation(sighting, started_at))
            self.counts["sent"] += 1
            self._waiting[sighting.camera, sighting.track_id].append((sighting, clock()))
            behind = clock() - due
            self.counts["late"] += behind > 1.0
            if int(sighting.arrives) > bar.done:
                details = f"{len(self.tally)} of {self.counts['sent']} observations answered"
                bar.advance(int(sighting.arrives) - bar.done, details)
        while (answer := self._cameras.receive_answer(_QUIET_SECONDS)) is not None:
            self._record_answer(answer)

    def finish(self) -> None:
        """Count the observations without an answer; call it once, at the end."""
        for waiting in self._waiting.values():
            for sighting, _ in waiting:
                self._count(sighting, None)
        self._waiting.clear()

    def _observation(self, sighting: SimulatedSighting, started_at: datetime) -> Observation:
        # Speed shortens the walks; the clock offsets stay the same.
        offset = sighting.captured - sighting.seen
        return Observation(
            track_id=sighting.track_id,
            bbox=list(sighting.box),
            frame_size=list(FRAME_SIZE),
            space=self._space,
            vector=normalise(sighting.vector, self._course.dimension),
            quality=sighting.quality,
            captured_at=started_at + timedelta(seconds=sighting.seen / self._pace.speed + offset),
        )

    def _record_answer(self, answer: TrackerAnswer) -> None:
        waiting = self._waiting.get((answer.camera, answer.assignment.track_id))
        if not waiting:
            self.counts["unexpected"] += answer.assignment.track_id != _PROBE_TRACK_ID
            return
        sighting, sent = waiting.popleft()
        self.delays.append(self._pace.clock() - sent)
        self.global_ids.add(answer.assignment.global_id)
        self._count(sighting, answer.assignment.global_id)

    def _count(self, sighting: SimulatedSighting, global_id: int | None) -> None:
        self.tally.add(walker=sighting.walker, camera=sighting.camera, at=sighting.seen, global_id=global_id)


def real_pace(speed: float, clock: Callable[[], float]) -> Pace:
    """Return a pace by the clocks of this machine."""
    return Pace(speed, clock, utc_now)
