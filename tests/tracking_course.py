"""Play a course to the real tracker on a real MongoDB, as fast as it answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Literal

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import Assignment
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.model import Box, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.tracking.tracker import Tracker
from fleet.tracks.course import Course
from fleet.tracks.metrics import TrackingTally
from fleet.tracks.scenario import SimulatedSighting, play_course
from tests.space_limits import ensure_with_limits

BEGAN = datetime(2026, 1, 15, 10, tzinfo=timezone.utc)
SPACE = "face:course-512"
# Observations within this time are looked up together, as a busy bridge does.
_TOGETHER_SECONDS = 0.05


@dataclass(frozen=True)
class Restart:
    """At `at` seconds of the course the tracker stops or is killed; another starts."""

    at: float
    how: Literal["stop", "kill"]


@dataclass
class CoursePlayer:
    """Plays a course to one tracker after another.

    `open_registry` opens the database anew for each tracker: a killed one leaves nothing behind.
    """

    open_registry: Callable[[], Awaitable[Registry]]
    settings: TrackingSettings = field(default_factory=TrackingSettings)
    progress: Callable[[float], None] = lambda _: None
    """Called with the seconds of the course that have passed since its last call."""
    took: list[float] = field(default_factory=list)
    """Seconds that each answer took for an active person."""
    looked_up: list[float] = field(default_factory=list)
    """The same for all others, which are looked up in batches."""

    async def play(
        self, course: Course, random: np.random.Generator, restarts: Sequence[Restart] = ()
    ) -> TrackingTally:
        """What the tracker answered to each observation of `course`."""
        tally = TrackingTally(course.look_alike_group)
        sightings = play_course(course, random)
        groups = groupby(sightings, key=lambda one: int(one.arrives / _TOGETHER_SECONDS))
        ends = [*(restart.at for restart in restarts), float("inf")]
        hows = [*(restart.how for restart in restarts), "stop"]
        begins = 0.0
        left: list[SimulatedSighting] = []
        for end, how in zip(ends, hows, strict=True):
            async with self._tracking(begins, how, end, course) as tracker:
                left = await self._play_until(end, left, groups, tracker, tally)
            begins = end
        return tally

    @asynccontextmanager
    async def _tracking(self, begins: float, how: str, end: float, course: Course) -> AsyncIterator[Tracker]:
        registry = await self.open_registry()
        # As a bridge has it before it admits anything of it.
        await ensure_with_limits(registry, EmbeddingSpace(SPACE, course.dimension))
        following = asyncio.create_task(registry.face_search.follow_changes())
        tracker = Tracker(registry, self.settings)
        await tracker.load_recent(_at(begins))
        try:
            yield tracker
            if how == "stop":
                await tracker.write_pending(_at(min(end, course.seconds)))
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await registry.close()

    async def _play_until(
        self,
        end: float,
        left: Sequence[SimulatedSighting],
        groups: "groupby[int, SimulatedSighting]",
        tracker: Tracker,
        tally: TrackingTally,
    ) -> list[SimulatedSighting]:
        """Play up to `end`; the first group after it, which is the next tracker's."""
        synced: float | None = None
        await self._show(tracker, left, tally)
        for _, group in groups:
            together = list(group)
            now = together[0].arrives
            if now >= end:
                return together
            if synced is None:
                synced = now
            elif now - synced >= self.settings.db_sync_interval:
                await tracker.write_pending(_at(now))
                self.progress(now - synced)
                synced = now
            await self._show(tracker, together, tally)
        return []

    async def _show(
        self, tracker: Tracker, sightings: Sequence[SimulatedSighting], tally: TrackingTally
    ) -> None:
        """Assign active persons at once; look the others up together, like the bridge."""
        waiting: list[SimulatedSighting] = []
        for sighting in sightings:
            began = time.perf_counter()
            known = None if waiting else tracker.match_active(_observed(sighting))
            if known is None:
                waiting.append(sighting)
            else:
                self.took.append(time.perf_counter() - began)
                _count(tally, sighting, known)
        if waiting:
            began = time.perf_counter()
            met = await tracker.assign_batch([_observed(one) for one in waiting])
            self.looked_up += [time.perf_counter() - began] * len(waiting)
            for sighting, assignment in zip(waiting, met, strict=True):
                _count(tally, sighting, assignment)


def _count(tally: TrackingTally, sighting: SimulatedSighting, assignment: Assignment) -> None:
    tally.add(
        walker=sighting.walker, camera=sighting.camera, at=sighting.seen, global_id=assignment.global_id
    )


def _observed(sighting: SimulatedSighting) -> ObservedFace:
    return ObservedFace(
        device_id=f"cam-{sighting.camera + 1:03}",
        site_id="lobby",
        track_id=sighting.track_id,
        box=Box(*sighting.box),
        space=SPACE,
        vector=sighting.vector,
        quality=sighting.quality,
        captured_at=_at(sighting.captured),
        seen_at=_at(sighting.arrives),
    )


def _at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)
