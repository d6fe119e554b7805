"""Draw an evaluation: histograms of the scores, the ROC, and the figures in large."""

import math

import numpy as np
from numpy.typing import NDArray

from fleet.model.measures.pair_scores import Float32

from .canvas import FAINT, GREEN, GRID, INK, ORANGE, PANEL, Area, Canvas, Colour, Point
from .evaluation import Estimate, Evaluation, MeasuredScores
from .roc import draw_roc

_SIZE = (1600, 880)
_HISTOGRAMS = Area(60, 160, 770, 640)
_ROC = Area(880, 160, 1540, 640)
_FIGURES = Area(60, 730, 1540, 850)
_MOST_BINS, _LEAST_BINS = 60, 24
_LABEL = 9.5


def draw_evaluation(evaluation: Evaluation, measured: MeasuredScores) -> bytes:
    """Return a PNG of the comparison of cameras."""
    canvas = Canvas(*_SIZE)
    _title(canvas, evaluation)
    _histograms(canvas, evaluation, measured)
    draw_roc(canvas, _ROC, evaluation, measured)
    _large_figures(canvas, evaluation)
    return canvas.png()


def _title(canvas: Canvas, evaluation: Evaluation) -> None:
    model, camera = evaluation.model, evaluation.camera
    left = _HISTOGRAMS.left
    canvas.text((left, 62), str(model.get("space") or "a model without a record"), size=21, bold=True)
    parts = [f"{model.get('dimension')} dimensions"]
    parts += [f"{name} {model[name]}" for name in ("detector", "alignment") if model.get(name)]
    parts.append(f"{camera.people} people, {camera.faces} faces")
    parts.append(f"{camera.genuine_pairs:,} genuine and {camera.impostor_pairs:,} impostor pairs")
    canvas.text((left, 98), "   |   ".join(parts), FAINT, 11)


def _histograms(canvas: Canvas, evaluation: Evaluation, measured: MeasuredScores) -> None:
    area, scores = _HISTOGRAMS, measured.scores
    canvas.box(area, PANEL)
    canvas.text((area.left, area.top - 16), "Scores", size=12, bold=True)
    canvas.text(
        (area.left + area.width / 2, area.bottom + 54), "cosine similarity", FAINT, 10, align="centre"
    )
    low, high = _score_range(scores.genuine, scores.impostor)
    for value in _ticks(low, high):
        x, y = area.point((value - low) / (high - low), 0)
        canvas.line([(x, y), (x, area.top)], GRID)
        canvas.text((x, y + 26), f"{value:g}", FAINT, _LABEL, align="centre")
    bins = min(_MOST_BINS, max(_LEAST_BINS, round(3 * math.sqrt(len(scores.genuine)))))
    heights = [_heights(part, low, high, bins) for part in (scores.impostor, scores.genuine)]
    most = max(float(height.max()) for height in heights) * 1.12
    for height, colour in zip(heights, (ORANGE, GREEN), strict=True):
        outline = _steps(area, height / most)
        canvas.fill([area.point(0, 0), *outline, area.point(1, 0)], colour, 0.32)
        canvas.line(outline, colour, 1.6)
    canvas.line([area.point(0, 0), area.point(1, 0)], FAINT)
    if evaluation.limits is not None:
        _mark_limit(canvas, area, 1 - evaluation.limits.distance, (low, high))
    _legend(canvas, area)


def _mark_limit(canvas: Canvas, area: Area, limit: float, shown: tuple[float, float]) -> None:
    place = (limit - shown[0]) / (shown[1] - shown[0])
    if not 0 <= place <= 1:
        return
    canvas.dashed(area.point(place, 0), area.point(place, 1), INK, 1.4)
    x, y = area.point(place, 0.96)
    text = f"limit of a match: {limit:.3g}"
    if place > 0.6:
        canvas.text((x - 9, y), text, INK, _LABEL, align="right")
    else:
        canvas.text((x + 9, y), text, INK, _LABEL)


def _legend(canvas: Canvas, area: Area) -> None:
    right = area.right
    entries: tuple[tuple[str, Colour], ...] = (("one person", GREEN), ("two people", ORANGE))
    for text, colour in entries:
        canvas.text((right, area.top - 16), text, FAINT, 10.5, align="right")
        right -= canvas.width_of(text, 10.5) + 9
        canvas.box(Area(right - 13, area.top - 28, right, area.top - 15), colour, 0.75)
        right -= 40


def _score_range(*parts: Float32) -> tuple[float, float]:
    low = min(float(part.min()) for part in parts)
    high = max(float(part.max()) for part in parts)
    margin = max(1e-3, (high - low) * 0.03)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return some six round numbers within a range."""
    rough = (high - low) / 6
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    return [round(number * step, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _heights(scores: Float32, low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Return the share of the scores in each bin."""
    return np.asarray(np.histogram(scores, bins=bins, range=(low, high))[0] / len(scores))


def _steps(area: Area, heights: NDArray[np.float64]) -> list[Point]:
    points = []
    count = len(heights)
    for place, height in enumerate(heights.tolist()):
        points += [area.point(place / count, height), area.point((place + 1) / count, height)]
    return points


def _large_figures(canvas: Canvas, evaluation: Evaluation) -> None:
    figures = _figures(evaluation)
    width = _FIGURES.width / len(figures)
    canvas.line([(_FIGURES.left, _FIGURES.top), (_FIGURES.right, _FIGURES.top)], GRID, 1.5)
    for number, (name, value, note) in enumerate(figures):
        x = _FIGURES.left + number * width
        canvas.text((x, _FIGURES.top + 36), name, FAINT, 11)
        canvas.text((x, _FIGURES.top + 80), value, INK, 22, bold=True)
        canvas.text((x, _FIGURES.top + 110), note, FAINT, 10)


def _figures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return name, value and note of each figure."""
    camera, outcome = evaluation.camera, evaluation.camera.outcome
    estimates = [("rank-1", camera.rank1), ("EER", camera.eer)]
    estimates += [(f"TAR at FAR {tar.far:g}", tar.estimate) for tar in camera.tar]
    figures = [(name, f"{figure.value:.1%}", _range(figure)) for name, figure in estimates if figure]
    if outcome is not None:
        known = outcome.right + outcome.wrong + outcome.unknown
        note = f"{outcome.wrong} wrong, {outcome.unknown} unknown"
        figures.append(("right at the limits", f"{outcome.right} of {known}", note))
        figures.append(("strangers taken", f"{outcome.taken}", f"of {outcome.taken + outcome.refused}"))
    return figures


def _range(estimate: Estimate) -> str:
    interval = estimate.interval
    return f"{interval.low:.1%} to {interval.high:.1%}" if interval else "no interval"
