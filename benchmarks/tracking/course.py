"""Measure the tracker's IDF1 on the standard course, with MongoDB."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import SecretStr
from rich.progress import Progress

from benchmarks.stats import Latency, Row
from broker_bridge.registry import MongoSettings, Registry
from deploy.local.stack import Mongod, free_port
from fleet.tracks.course import STANDARD, Course
from fleet.tracks.metrics import TrackingScore
from tests.tracking_course import CoursePlayer

_SEED = 1
_IDF1 = 0.98


@dataclass(frozen=True)
class CourseRow(Row):
    """A row that must also follow people well enough.

    Its latency is that of one answer.
    """

    score: TrackingScore | None = None

    @property
    def holds(self) -> bool:
        score = self.score
        return super().holds and (
            score is None or (score.idf1 >= _IDF1 and score.merged == 0 and score.reused == 0)
        )

    @property
    def must(self) -> str:
        score = self.score
        if score is None:
            return super().must
        told = f"IDF1 {score.idf1:.4f} >= {_IDF1}, {score.merged} merged, {score.reused} reused"
        return f"{told}  {'holds' if self.holds else 'MISSED'}"


def measure(folder: Path, progress: Progress, course: Course = STANDARD) -> list[Row]:
    """Play `course` with all its troubles as fast as the tracker answers: minutes."""
    task = progress.add_task("course", total=course.seconds)
    mongod = Mongod(folder / "course", free_port()).start()

    async def open_registry() -> Registry:
        return await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database="course"))

    player = CoursePlayer(open_registry, progress=lambda seconds: progress.advance(task, seconds))
    began = time.perf_counter()
    try:
        tally = asyncio.run(player.play(course, np.random.default_rng(_SEED)))
    finally:
        mongod.kill()
    took = time.perf_counter() - began
    score = tally.score()
    minutes = f"{course.seconds / 60:g} min in {took:.0f} s"
    name = f"course of {score.walkers} people, {course.cameras} cameras, {minutes}"
    details = f"{score.switches} switches, {score.fragmentations} fragmentations, {score.mixed} mixed"
    return [
        CourseRow(name, Latency.from_seconds(player.took + player.looked_up), score=score),
        Row(f"  {details}; persons that were looked up", Latency.from_seconds(player.looked_up)),
    ]
