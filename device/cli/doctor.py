"""`wfm-device doctor`: what is right and wrong with this device."""

import json
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from broker_bridge.common.logs import configure_logging
from broker_bridge.common.programs.cli import Config
from broker_bridge.common.settings import LogSettings, load_settings
from device.cli.common import config_file, exit_on_error
from device.doctor.check import CheckResult
from device.doctor.examination import ExaminationReport, examine
from device.doctor.timing import StageTimes
from device.settings import DeviceSettings

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red", "skipped": "dim"}


def doctor(
    context: typer.Context,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    no_camera: Annotated[bool, typer.Option("--no-camera", help="Skip the camera.")] = False,
    frames: Annotated[
        int, typer.Option(min=0, max=200, help="Frames of the camera to time the stages on.")
    ] = 0,
) -> None:
    """Check everything that this device needs, with advice.

    Status 1 if there is a fault.
    The device may run meanwhile: then the doctor does not log in to the broker, and the camera may be busy.
    """
    with exit_on_error():
        settings = load_settings(DeviceSettings, config_file(context, config), os.environ)
        configure_logging(_quieter(settings.log))
    report = _examine(settings, with_camera=not no_camera, camera_frames=frames)
    if as_json:
        typer.echo(json.dumps(_document(report), indent=2, allow_nan=False))
    else:
        _print(report)
    if report.count("fault"):
        raise typer.Exit(1)


def _quieter(log: LogSettings) -> LogSettings:
    """Return log settings that hide what libraries log at info while they load."""
    return log.model_copy(update={"level": "warning"}) if log.level == "info" else log


def _examine(settings: DeviceSettings, **options: Any) -> ExaminationReport:
    console = Console(stderr=True)
    if not console.is_terminal:
        return examine(settings, **options)
    with console.status("") as status:
        return examine(settings, on_check=status.update, **options)


def summary(report: ExaminationReport) -> str:
    """Return the last line of the output."""
    faults, warnings = report.count("fault"), report.count("warning")
    if faults:
        return f"{_count(faults, 'fault')}, {_count(warnings, 'warning')}: this device cannot work"
    return f"no fault, {_count(warnings, 'warning')}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _document(report: ExaminationReport) -> dict[str, Any]:
    times = report.times
    return {
        "summary": summary(report),
        "faults": report.count("fault"),
        "warnings": report.count("warning"),
        "checks": [asdict(check) for check in report.checks],
        "times": None if times is None else {**asdict(times), "frames_per_second": times.frames_per_second},
    }


def _print(report: ExaminationReport) -> None:
    console = Console(markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        console.print(_table(report.checks))
    else:
        for check in report.checks:
            advice = f" -> {check.advice}" if check.advice else ""
            typer.echo(f"{check.state:8}{check.name:10}{check.detail}{advice}")
    if report.times is not None:
        _print_times(console, report.times)
    console.print(summary(report), style=_STYLES["fault" if report.count("fault") else "ok"])


def _table(checks: tuple[CheckResult, ...]) -> Table:
    table = Table("check", "state", "found", "what to do", show_lines=True)
    for check in checks:
        table.add_row(check.name, check.state, check.detail, check.advice or "", style=_STYLES[check.state])
    return table


def _print_times(console: Console, times: StageTimes) -> None:
    source = "a synthetic frame" if times.synthetic else "frames of the camera"
    typer.echo(
        f"{times.frames} runs on {source}, {times.faces / times.frames:.1f} faces each, "
        f"{times.templates} templates:"
    )
    # Lines and colours are for a terminal; a pipe gets columns.
    table = Table(box=box.HEAVY_HEAD if console.is_terminal else None)
    table.add_column("stage")
    for heading in ("median ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for stage in times.stages:
        table.add_row(stage.stage, f"{stage.median_ms:.2f}", f"{stage.p95_ms:.2f}")
    console.print(table)
    typer.echo(f"{times.frames_per_second:.1f} frames a second on one thread")
