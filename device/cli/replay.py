"""Run `wfm-device replay`: show the events of a recording under other settings."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.table import Column, Table

from broker_bridge.contract.wire import format_time
from device.cli.common import exit_on_error
from device.recordings.format import Recording, find_recordings
from device.recordings.replay import EventChange, Replay, SeenEvent, compare
from device.recordings.replay import replay as replay_scores

# A smaller recording is replayed before a bar would be visible.
_LONG_BYTES = 4_000_000
_WIDTH_OF_A_PIPE = 1000


def replay(  # noqa: PLR0917  # typer reads the options from the arguments
    recording: Annotated[Path, typer.Argument(help="A file, or the folder of WFM_DEVICE__RECORD_SCORES.")],
    confirmation_frames: Annotated[int | None, typer.Option(min=1, max=1000)] = None,
    consistency_threshold: Annotated[float | None, typer.Option(min=0.001, max=1)] = None,
    cooldown_seconds: Annotated[float | None, typer.Option(min=0)] = None,
    distance_threshold: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    min_margin: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Decide recorded scores again under other settings.

    The output says which events stay, are new, or vanish.

    Other settings stay as recorded. Faces that were refused before the comparison (low quality, a stale
    gallery, a quarantined model) are refused again, because the recording has no pictures. Emotion events are
    not replayed.
    """
    changes = {
        "confirmation_frames": confirmation_frames,
        "consistency_threshold": consistency_threshold,
        "cooldown_seconds": cooldown_seconds,
        "distance_threshold": distance_threshold,
        "min_margin": min_margin,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    with exit_on_error():
        recordings, problems = find_recordings(recording)
        result = _replay(recordings, changes)
    events = compare(result.before.events, result.after.events)
    notes = [*problems, *(sentence for one in recordings for sentence in one.problems), *_notes(result)]
    if as_json:
        typer.echo(json.dumps(_document(recordings, changes, result, events, notes), indent=2))
        return
    for note in notes:
        typer.echo(note, err=True)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        # A pipe gets whole lines, so that a search finds them.
        console.width = _WIDTH_OF_A_PIPE
    _print(console, recordings, changes, result, events)


def _replay(recordings: list[Recording], changes: dict[str, Any]) -> Replay:
    total = sum(each.path.stat().st_size for each in recordings)
    console = Console(stderr=True)
    hidden = total < _LONG_BYTES or not console.is_terminal
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("replay", total=total)
        return replay_scores(recordings, changes, lambda size: progress.advance(task, size))


def _notes(result: Replay) -> list[str]:
    """Return notes on the reliability of the figures."""
    notes = []
    if result.begins_late:
        notes.append("the recording starts in mid-run: the first decisions miss the frames before it")
    if result.before.events != result.recorded.events:
        notes.append(
            f"under its own settings the replay has {len(result.before.events)} events, the device had "
            f"{len(result.recorded.events)}: lines are missing, or the device ran another version"
        )
    return notes


def _document(
    recordings: list[Recording],
    changes: dict[str, Any],
    result: Replay,
    events: list[EventChange],
    notes: list[str],
) -> dict[str, Any]:
    settings = recordings[-1].header.settings
    return {
        "files": [str(each.path) for each in recordings],
        "frames": result.frames,
        "faces": result.faces,
        "damaged_lines": sum(each.damaged for each in recordings),
        "torn_lines": sum(each.is_torn for each in recordings),
        "notes": notes,
        "settings": {
            "before": settings.model_dump(),
            "after": settings.model_copy(update=changes).model_dump(),
        },
        "events": [
            {"change": each.kind, "before": _event(each.before), "after": _event(each.after)}
            for each in events
        ],
        "refusals": {"before": dict(result.before.refusals), "after": dict(result.after.refusals)},
    }


def _event(event: SeenEvent | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {
        "time": format_time(event.at),
        "run": event.run,
        "frame": event.frame,
        "event_type": event.event_type,
        "track_id": event.track_id,
        "user_id": event.user_id,
        "distance": event.distance,
    }


def _print(
    console: Console,
    recordings: list[Recording],
    changes: dict[str, Any],
    result: Replay,
    events: list[EventChange],
) -> None:
    settings = recordings[-1].header.settings
    damaged = sum(each.damaged for each in recordings)
    console.print(
        f"{settings.device_id}: {result.faces} faces in {result.frames} frames of {len(recordings)} files, "
        f"{damaged} damaged lines"
    )
    for name, value in changes.items():
        console.print(f"{name}: {getattr(settings, name)} -> {value}")
    counts = {kind: sum(each.kind == kind for each in events) for kind in ("stays", "new", "vanishes")}
    console.print(
        f"events: {counts['stays']} stay, {counts['new']} new, {counts['vanishes']} vanish", style="bold"
    )
    if events:
        console.print(_event_table(events))
    console.print(_refusal_table(result))


def _event_table(events: list[EventChange]) -> Table:
    table = Table("event", "time", "track", Column("user", overflow="fold"), "distance", "moved")
    for each in events:
        event = each.event
        moved = each.after.seconds - each.before.seconds if each.after and each.before else 0.0
        table.add_row(
            each.kind,
            format_time(event.at),
            event.track_id,
            event.user_id or "(unknown)",
            "" if event.distance is None else f"{event.distance:.3f}",
            f"{moved:+.1f} s" if moved else "",
        )
    return table


def _refusal_table(result: Replay) -> Table:
    table = Table("refused as", "before", "after")
    for reason in sorted(result.before.refusals | result.after.refusals):
        table.add_row(reason, str(result.before.refusals[reason]), str(result.after.refusals[reason]))
    table.add_row("events", str(len(result.before.events)), str(len(result.after.events)))
    return table
