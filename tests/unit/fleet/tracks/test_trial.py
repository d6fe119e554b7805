"""A trial plays a course to simulated cameras on a clock of the test."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from rich.console import Console

from broker_bridge.contract.messages import Assignment, Observation
from fleet.errors import CannotRunError
from fleet.report import ProgressBar
from fleet.tracks.cameras import TrackerAnswer
from fleet.tracks.course import Course
from fleet.tracks.scenario import play_course
from fleet.tracks.trial import Pace, Trial

BEGAN = datetime(2026, 1, 15, 10, tzinfo=timezone.utc)
SPACE = "face:simulated-512"
COURSE = Course(cameras=3, walkers=6, seconds=120.0, delay=0.2)
TRUTH = {
    (sighting.camera, sighting.track_id): sighting.walker + 1
    for sighting in play_course(COURSE, np.random.default_rng(1))
} | {(camera, "roll-call"): 1000 for camera in range(3)}  # fmt: skip

Decide = Callable[[int, Observation], int | None]


def by_truth(camera: int, seen: Observation) -> int | None:
    return TRUTH[camera, seen.track_id]


class PlayedTracker:
    """Cameras whose observations `decide` answers after `delay` seconds."""

    broker = "127.0.0.1:1883"

    def __init__(self, decide: Decide = by_truth, delay: float = 0.01) -> None:
        self.decide = decide
        self.delay = delay
        self.now = 0.0
        self.observations_sent: list[tuple[float, int, Observation]] = []
        self._answers: list[tuple[float, TrackerAnswer]] = []

    def send_observation(self, camera: int, observation: Observation) -> None:
        self.observations_sent.append((self.now, camera, observation))
        global_id = self.decide(camera, observation)
        if global_id is not None:
            assignment = Assignment(track_id=observation.track_id, global_id=global_id)
            self._answers.append((self.now + self.delay, TrackerAnswer(camera, assignment)))

    def receive_answer(self, seconds: float) -> TrackerAnswer | None:
        until = self.now + max(seconds, 0)
        if self._answers and self._answers[0][0] <= until:
            at, answer = self._answers.pop(0)
            self.now = max(self.now, at)
            return answer
        self.now = until
        return None

    def pace(self, speed: float = 1.0) -> Pace:
        return Pace(speed, lambda: self.now, lambda: BEGAN + timedelta(seconds=self.now))


def run(tracker: PlayedTracker, course: Course = COURSE, speed: float = 1.0) -> Trial:
    trial = Trial(course, tracker, SPACE, tracker.pace(speed))
    with ProgressBar(Console(quiet=True), "playing", 120) as bar:
        trial.run_course(np.random.default_rng(1), bar)
    trial.finish()
    return trial


def test_a_correct_tracker_has_the_best_score() -> None:
    """Every observation is sent, answered and counted as correct."""
    tracker = PlayedTracker()
    trial = run(tracker)
    score = trial.tally.score()
    assert score.observations == score.answered == len(tracker.observations_sent) > 100
    assert (score.idf1, score.switches, score.mixed, score.split) == (1.0, 0, 0, 0)
    assert max(trial.delays) <= 0.21
    assert trial.global_ids == set(TRUTH.values()) - {1000}


def test_one_id_for_all_walkers_lowers_the_score() -> None:
    """The tracker that gives it merges all walkers."""
    score = run(PlayedTracker(lambda *_: 7)).tally.score()
    assert score.merged == score.mixed == 1
    assert score.idf1 < 0.5


def test_missing_answers_count_as_unanswered() -> None:
    """A camera without answers lowers the score by its share."""
    trial = run(PlayedTracker(lambda camera, seen: by_truth(camera, seen) if camera else None))
    score = trial.tally.score()
    assert 0 < score.observations - score.answered < score.observations
    assert score.mixed == score.switches == 0
    assert score.idf1 == pytest.approx(2 * score.answered / (score.observations + score.answered))


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_observations_are_sent_when_they_are_due(speed: float) -> None:
    """Four times the speed sends four times as early."""
    tracker = PlayedTracker()
    run(tracker, speed=speed)
    due = [sighting.arrives / speed for sighting in play_course(COURSE, np.random.default_rng(1))]
    assert [at for at, *_ in tracker.observations_sent] == pytest.approx(due, abs=0.011)


def test_a_camera_s_clock_offset_does_not_depend_on_the_speed() -> None:
    """The captured time differs from the true time by the offset."""
    course = replace(COURSE, clock_skew=60.0)
    for speed in (1.0, 4.0):
        tracker = PlayedTracker()
        run(tracker, course, speed)
        played = play_course(course, np.random.default_rng(1))
        for (_, camera, seen), sighting in zip(tracker.observations_sent, played, strict=True):
            truth = BEGAN + timedelta(seconds=sighting.seen / speed)
            assert camera == sighting.camera
            off = (seen.captured_at - truth).total_seconds()
            assert off == pytest.approx(sighting.captured - sighting.seen, abs=0.002)


def test_the_course_starts_after_every_camera_has_an_answer() -> None:
    """Cameras that the bridge does not know yet send again."""
    received: Counter[int] = Counter()

    def slow_to_know(camera: int, seen: Observation) -> int | None:
        received[camera] += 1
        return 1000 if received[camera] > camera else None

    tracker = PlayedTracker(slow_to_know)
    Trial(COURSE, tracker, SPACE, tracker.pace()).await_tracker(np.random.default_rng(2))
    assert received == {0: 1, 1: 2, 2: 3}


def test_the_course_does_not_start_without_a_tracker() -> None:
    """The sentence names the setting to check."""
    tracker = PlayedTracker(lambda *_: None)
    trial = Trial(COURSE, tracker, SPACE, tracker.pace())
    with pytest.raises(CannotRunError, match=r"no tracker answers 3 of 3 cameras.*AUTO_REGISTER"):
        trial.await_tracker(np.random.default_rng(2))
    assert 10 <= tracker.now <= 30


def test_a_lost_broker_leaves_the_score_so_far() -> None:
    """The part that was played is scored."""

    def goes_away(camera: int, seen: Observation) -> int | None:
        if len(tracker.observations_sent) > 50:
            raise CannotRunError("the broker ended the connection")
        return by_truth(camera, seen)

    tracker = PlayedTracker(goes_away)
    trial = Trial(COURSE, tracker, SPACE, tracker.pace())
    with ProgressBar(Console(quiet=True), "playing", 120) as bar, pytest.raises(CannotRunError):
        trial.run_course(np.random.default_rng(1), bar)
    trial.finish()
    assert trial.tally.score().observations == 50
