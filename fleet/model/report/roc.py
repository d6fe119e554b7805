"""Draw the receiver operating characteristic: TAR over a logarithmic FAR."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fleet.model.measures.error_rates import ErrorCurve

from .canvas import BLUE, FAINT, GRID, INK, PANEL, RED, Area, Canvas, Point
from .evaluation import Estimate, Evaluation, MeasuredScores

_DECADES = 4
_LABEL = 9.5
# Room above 100 %, so that a curve along it is visible.
_ROOM = 0.04


@dataclass(frozen=True)
class RocAxes:
    """Places of FAR and TAR in `area`; TAR begins at `floor`."""

    area: Area
    floor: float

    def place(self, far: float, tar: float) -> Point:
        x = 1 + math.log10(max(far, 10.0**-_DECADES)) / _DECADES
        return self.area.point(x, max(0.0, (tar - self.floor) / (1 + _ROOM * (1 - self.floor) - self.floor)))


def draw_roc(canvas: Canvas, area: Area, evaluation: Evaluation, measured: MeasuredScores) -> None:
    """Draw curve, EER, and TAR at each FAR with its interval.

    What too few impostor pairs cannot show is grey.
    """
    curve, camera = measured.curve, evaluation.camera
    lowest = min(1.0, max(1 / camera.compared, 10.0**-_DECADES))
    axes = RocAxes(area, _floor(evaluation, curve.tar_at(lowest)[0]))
    _draw_axes(canvas, axes)
    if lowest > 10.0**-_DECADES:
        right = axes.place(lowest, 1)[0]
        canvas.box(Area(area.left, area.top, right, area.bottom), GRID, 0.7)
        text = "too few pairs"
        if right - area.left > canvas.width_of(text, _LABEL) + 16:
            canvas.text((area.left + 9, area.bottom - 12), text, FAINT, _LABEL)
    _draw_equal_errors(canvas, axes)
    canvas.line([axes.place(far, tar) for far, tar in _points(curve, lowest)], BLUE, 2.4)
    for tar in camera.tar:
        if tar.estimate is not None:
            _draw_estimate(canvas, axes, tar.far, tar.estimate)
    eer = camera.eer.value
    if 0 < eer <= 1 - axes.floor:
        x, y = axes.place(eer, 1 - eer)
        canvas.dot((x, y), RED, 5)
        text = f"EER {eer:.1%}"
        width = canvas.width_of(text, 10.5)
        left = x + 16 if x + 22 + width < area.right else x - 16 - width
        canvas.box(Area(left - 5, y + 9, left + width + 5, y + 31), PANEL, 0.9)
        canvas.text((left, y + 25), text, RED, 10.5)


def _floor(evaluation: Evaluation, lowest: float) -> float:
    """Return where TAR begins: a full tenth below all that is drawn."""
    estimates = [tar.estimate for tar in evaluation.camera.tar]
    intervals = [estimate.interval for estimate in estimates if estimate]
    lows = [lowest, 1 - evaluation.camera.eer.value, *(each.low for each in intervals if each)]
    return max(0.0, math.floor((min(lows) - 0.02) * 10) / 10)


def _draw_axes(canvas: Canvas, axes: RocAxes) -> None:
    area = axes.area
    canvas.box(area, PANEL)
    canvas.text((area.left, area.top - 16), "ROC", size=12, bold=True)
    canvas.text((area.right, area.top - 16), "TAR, 95 % intervals over people", FAINT, 10.5, align="right")
    middle = area.left + area.width / 2
    canvas.text((middle, area.bottom + 54), "FAR, logarithmic", FAINT, 10, align="centre")
    for decade in range(_DECADES + 1):
        x, _ = area.point(decade / _DECADES, 0)
        canvas.line([(x, area.bottom), (x, area.top)], GRID)
        canvas.text((x, area.bottom + 26), f"{10.0 ** (decade - _DECADES):g}", FAINT, _LABEL, align="centre")
    span = 1 - axes.floor
    step = next(size for size in (0.02, 0.05, 0.1, 0.2) if span / size <= 6)
    for number in range(round(span / step) + 1):
        share = 1 - number * step
        _, y = axes.place(1, share)
        canvas.line([(area.left, y), (area.right, y)], GRID)
        canvas.text((area.left - 10, y + 5), f"{share:.0%}", FAINT, _LABEL, align="right")
    canvas.line([area.point(0, 0), area.point(1, 0)], FAINT)


def _draw_equal_errors(canvas: Canvas, axes: RocAxes) -> None:
    """Draw where FAR and FNMR are equal, dashed."""
    places = [
        axes.place(far, 1 - far) for far in np.logspace(-_DECADES, 0, 4000).tolist() if 1 - far > axes.floor
    ]
    dash: list[Point] = []
    length = 0.0
    for before, place in pairwise(places):
        length += math.dist(before, place)
        if length % 12 < 6:
            dash.append(place)
        elif dash:
            canvas.line(dash, FAINT, 1.0)
            dash = []


def _points(curve: ErrorCurve, lowest: float) -> list[tuple[float, float]]:
    """Return the steps of the curve from `lowest` on, at most some thousand of them."""
    grid = np.logspace(math.log10(lowest), 0, 2000).tolist()
    return [(far, curve.tar_at(far)[0]) for far in grid]


def _draw_estimate(canvas: Canvas, axes: RocAxes, far: float, estimate: Estimate) -> None:
    if estimate.interval is not None:
        ends = [axes.place(far, value) for value in (estimate.interval.low, estimate.interval.high)]
        canvas.line(ends, INK, 1.3)
        for x, y in ends:
            canvas.line([(x - 5, y), (x + 5, y)], INK, 1.3)
    canvas.dot(axes.place(far, estimate.value), BLUE, 4.5)
