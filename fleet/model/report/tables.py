"""Print an evaluation on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleet.model.measures.intervals import Interval
from fleet.model.measures.searches import SearchOutcome

from .evaluation import Comparison, Estimate, Evaluation, PhotoCounts, Spread, TarAtFar

_SHOWN = 10


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the tables: the photos, the figures, the searches, and the times."""
    console.print(_model_line(evaluation), soft_wrap=True)
    console.print(_photo_table(evaluation.photos))
    for item in evaluation.left_out[:_SHOWN]:
        console.print(Text(f"{_printable(item.name)}: {item.reason}"), soft_wrap=True)
    hidden = len(evaluation.left_out) - _SHOWN
    if hidden > 0:
        console.print(f"... and {hidden} more: --json FILE has all of them")
    columns = {"camera against camera": evaluation.camera}
    if evaluation.enrolled is not None:
        columns["camera against enrolled photo"] = evaluation.enrolled
    console.print(_figures(columns))
    _print_notes(console, evaluation)
    if evaluation.camera.outcome is not None:
        console.print(_outcomes(columns, evaluation))
    if evaluation.clips is not None:
        console.print(_clips(evaluation.clips))
    if evaluation.milliseconds:
        console.print(_times(evaluation.milliseconds))


def _model_line(evaluation: Evaluation) -> Text:
    model = evaluation.model
    parts = [f"{model.get('space') or 'a model without a record'}, {model.get('dimension')} dimensions"]
    parts += [f"{name} {model[name]}" for name in ("detector", "alignment") if model.get(name)]
    return Text(", ".join(parts), style="bold")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _photo_table(photos: PhotoCounts) -> Table:
    table = _table("Photos", "")
    table.add_row("photos", str(photos.read))
    for code, count in sorted(photos.left_out.items()):
        table.add_row(f"left out: {code}", str(count))
    table.add_row("faces found", str(photos.found))
    for reason, count in sorted(photos.not_found.items()):
        table.add_row(f"not found: {reason}", str(count))
    table.add_row("passed by the quality gate", str(photos.passed))
    for reason, count in sorted(photos.gated.items()):
        table.add_row(f"refused: {reason}", str(count))
    return table


def _figures(columns: Mapping[str, Comparison]) -> Table:
    table = _table("Error rates, with 95 % intervals over people", *columns)
    shown = list(columns.values())

    def row(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    row("people, faces", *(f"{each.people}, {each.faces}" for each in shown))
    row("genuine pairs", *(f"{each.genuine_pairs:,}" for each in shown))
    row("impostor pairs", *(_impostor_pairs(each) for each in shown))
    if shown[0].rank1 is not None:
        row("rank-1", *(percent(each.rank1) for each in shown))
    row("EER", *(percent(each.eer) for each in shown))
    for place in range(len(shown[0].tar)):
        row(
            f"TAR at FAR {shown[0].tar[place].far:g}",
            *(_tar(each.tar[place]) for each in shown),
        )
    row("genuine: mean, min, max", *(_spread(each.genuine) for each in shown))
    row("impostor: mean, min, max", *(_spread(each.impostor) for each in shown))
    return table


def _impostor_pairs(each: Comparison) -> str:
    if each.compared == each.impostor_pairs:
        return f"{each.impostor_pairs:,}"
    return f"{each.compared:,} drawn of {each.impostor_pairs:,}"


def percent(estimate: Estimate | None) -> str:
    """Return a share and its interval in percent."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.1%}{_interval(estimate.interval)}"


def _interval(interval: Interval | None) -> str:
    return f" ({interval.low:.1%} to {interval.high:.1%})" if interval else ""


def _tar(tar: TarAtFar) -> str:
    if tar.estimate is None:
        return f"not shown: needs {tar.needed_pairs:,} impostor pairs"
    threshold = "no threshold" if tar.threshold is None else f"{tar.threshold:.3f}"
    return f"{percent(tar.estimate)} at {threshold}"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.3f}, {spread.min:.3f}, {spread.max:.3f}"


def _print_notes(console: Console, evaluation: Evaluation) -> None:
    if evaluation.camera.rank1 is not None and evaluation.camera.rank1.interval is None:
        console.print("no intervals: fewer than three people say nothing about others")
    if evaluation.same_photo is not None:
        spread = evaluation.same_photo
        console.print(
            f"the same photo, enrolled and at a camera: cosine {spread.mean:.3f} on average, "
            f"{spread.min:.3f} at least",
            soft_wrap=True,
        )
    for title, pairs in (
        ("least alike of one person", evaluation.unlike),
        ("most alike of two people", evaluation.alike),
    ):
        for one, two, cosine in pairs:
            console.print(
                Text(f"{title}: {_printable(one)}, {_printable(two)} ({cosine:.3f})"), soft_wrap=True
            )


def _outcomes(columns: Mapping[str, Comparison], evaluation: Evaluation) -> Table:
    limits = evaluation.limits
    title = "Searches at the limits of the record"
    if limits is not None:
        title += f" (distance {limits.distance:g}, margin {limits.margin:g})"
    table = _table(title, *columns)
    outcomes = [each.outcome for each in columns.values()]
    for name, field in (
        ("enrolled: right", "right"),
        ("enrolled: wrong person", "wrong"),
        ("enrolled: unknown", "unknown"),
        ("strangers refused", "refused"),
        ("strangers taken for a person", "taken"),
    ):
        table.add_row(name, *(str(getattr(outcome, field)) if outcome else "-" for outcome in outcomes))
    return table


def _clips(outcome: SearchOutcome) -> Table:
    table = _table("Clips at the limits of the record: half of the photos enrolled", "")
    known, strangers = outcome.right + outcome.wrong + outcome.unknown, outcome.taken + outcome.refused
    table.add_row("clips of people enrolled", str(known))
    table.add_row("right", f"{outcome.right} ({outcome.right / max(1, known):.1%})")
    table.add_row("wrong person", str(outcome.wrong))
    table.add_row("unknown", str(outcome.unknown))
    table.add_row("clips of strangers", str(strangers))
    table.add_row("taken for a person", str(outcome.taken))
    return table


def _times(milliseconds: Mapping[str, float]) -> Table:
    table = _table("Times of a face, one thread", "p50 ms")
    for stage, spent in milliseconds.items():
        table.add_row(stage, f"{spent:.2f}")
    return table


def _printable(text: str) -> str:
    """Replace the control characters that a file name may contain."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
