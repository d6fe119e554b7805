"""Measure the stages of the pipeline in milliseconds per frame.

Averages are since the start.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# The stages that run a network.
INFERENCE = ("detect", "embed")
# Weight of the newest frame in the moving averages; about the last twenty frames count.
_NEWEST_WEIGHT = 0.1


class StageTimer:
    """Milliseconds of each stage of one frame, from the end of the stage before it."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._since = timer()
        self.milliseconds: dict[str, float] = {}

    def end(self, stage: str) -> None:
        now = self._timer()
        self.milliseconds[stage] = (now - self._since) * 1000
        self._since = now

    def spent(self, stages: Sequence[str]) -> float:
        """Return the milliseconds of `stages` together."""
        return sum(self.milliseconds[stage] for stage in stages)


@dataclass
class PipelineStats:
    """Moving averages and counts of a pipeline since the start.

    `fps` is frames per second, `milliseconds` is per stage, `counts` has `frames`, `faces` and `events`, and
    `quality_reasons` counts the faces that were not good enough, by reason.
    """

    fps: float | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    quality_reasons: Counter[str] = field(default_factory=Counter)
    _last_frame_at: float | None = None

    @property
    def inference_ms(self) -> float | None:
        """Detector and embedder together; None before the first frame."""
        return sum(self.milliseconds[stage] for stage in INFERENCE) if self.milliseconds else None

    def add_frame(
        self,
        captured_at: float,
        quality_reasons: Sequence[str | None],
        events: int,
        milliseconds: Mapping[str, float],
    ) -> None:
        """Count a frame and the quality reason of each of its faces.

        `captured_at` is in monotonic seconds. A face of good quality has None as its reason.
        """
        self.counts["frames"] += 1
        self.counts["faces"] += len(quality_reasons)
        self.counts["events"] += events
        self.quality_reasons.update(reason for reason in quality_reasons if reason is not None)
        self.milliseconds = {
            stage: _moving_average(self.milliseconds.get(stage), spent)
            for stage, spent in milliseconds.items()
        }
        if self._last_frame_at is not None and captured_at > self._last_frame_at:
            period = 1 / self.fps if self.fps else None
            self.fps = 1 / _moving_average(period, captured_at - self._last_frame_at)
        self._last_frame_at = captured_at


def _moving_average(average: float | None, newest: float) -> float:
    return newest if average is None else average + _NEWEST_WEIGHT * (newest - average)
