"""Run `wfm-fleet simulate tracks` to try the tracker with simulated cameras."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from broker_bridge.common.programs.cli import Config
from broker_bridge.common.programs.version import how_to_install
from broker_bridge.common.settings import MqttSettings, Settings, load_settings
from broker_bridge.contract.ids import DeviceId, SiteId, SpaceId
from broker_bridge.contract.messages import DeviceInfo, SpaceInfo
from fleet.common import CANNOT_RUN, STOPPED, exit_on_error
from fleet.errors import CannotRunError
from fleet.report import ProgressBar

from .course import Course, StandingCrowd

if TYPE_CHECKING:
    from .metrics import TrackingScore
    from .trial import Trial

# Faster, the tracker could take two observations of a track for two tracks of one picture.
_FASTEST = 5.0
# Shorter, crowd and look-alikes find no time to meet.
_SHORTEST = 0.1


class TrialSettings(Settings):
    """The settings of the command; everything else is an option."""

    mqtt: MqttSettings = MqttSettings()


def simulate_tracks(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    cameras: Annotated[int, typer.Option(min=1, max=100)] = 20,
    walkers: Annotated[int, typer.Option("--people", min=1, max=10_000)] = 100,
    minutes: Annotated[float, typer.Option(min=_SHORTEST, help="Length of the course.")] = 10.0,
    speed: Annotated[float, typer.Option(min=0.1, max=_FASTEST, help="Times as fast as real time.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed plays the same course.")] = 1,
    site: Annotated[str, typer.Option(help="The site of the cameras.")] = "lobby",
    prefix: Annotated[str, typer.Option(help="The cameras' ids are PREFIX-001 and on.")] = "sim",
    space: Annotated[str, typer.Option(help="A space without real faces.")] = "face:simulated-512",
    look_alikes: Annotated[
        float, typer.Option(min=0, max=1, help="Share of people that look like another one.")
    ] = 0.1,
    crowd: Annotated[int, typer.Option(min=0, help="People on one camera together, halfway.")] = 15,
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Share of visits that two cameras see.")
    ] = 0.15,
    breaks: Annotated[
        float, typer.Option(min=0, max=1, help="Share of observations after which a track breaks.")
    ] = 0.01,
    loss: Annotated[
        float, typer.Option(min=0, max=1, help="Share of observations that are never sent.")
    ] = 0.02,
    delay_ms: Annotated[
        float, typer.Option(min=0, max=5000, help="Longest delay; reorders observations.")
    ] = 300.0,
    clock_skew: Annotated[
        float, typer.Option(min=0, max=290, help="Largest error of a camera's clock, in seconds.")
    ] = 60.0,
    require_idf1: Annotated[float | None, typer.Option(min=0, max=1, help="Status 1 below this.")] = None,
    config: Config = None,
) -> None:
    """Simulate people that walk past cameras, and measure the tracker.

    **For a trial fleet**: cameras, people and their vectors end up in the registry. The vectors lie in a
    space of their own (--space), so that no real face matches them. The bridge must accept the cameras:
    WFM_BRIDGE__AUTO_REGISTER, or register `sim-001` and on beforehand. docs/tracking-simulator.md says how to
    remove everything afterwards.

    The broker is a setting: section `mqtt` of the file that --config names, or WFM_MQTT__HOST and so on. With
    a password and no user name, each camera logs in under its own id.

    Status 0: played to the end; 1: IDF1 below --require-idf1; 2: it could not run, or the broker went away;
    130: stopped with Ctrl-C, after which the table shows the part that was played.
    """
    names = [_check_id(DeviceId, f"{prefix}-{number:03}", "prefix") for number in range(1, cameras + 1)]
    _check_id(SiteId, site, "site")
    _check_id(SpaceId, space, "space")
    course = make_course(
        cameras=cameras, walkers=walkers, minutes=minutes, look_alikes=look_alikes, crowd=crowd,
        overlap=overlap, breaks=breaks, loss=loss, delay_ms=delay_ms, clock_skew=clock_skew,
    )  # fmt: skip
    with exit_on_error():
        settings = load_settings(TrialSettings, config or context.find_object(Path), os.environ)
        trial, failure = _play(settings.mqtt, names, course, site=site, space=space, speed=speed, seed=seed)
    score = trial.tally.score()
    Console().print(_table(score, trial))
    if failure is not None:
        _fail(failure.status, failure.sentence)
    if require_idf1 is not None and score.idf1 < require_idf1:
        _fail(1, f"IDF1 is {score.idf1:.4f}, below the required {require_idf1:g}")


def make_course(
    *,
    cameras: int,
    walkers: int,
    minutes: float,
    look_alikes: float,
    crowd: int,
    overlap: float,
    breaks: float,
    loss: float,
    delay_ms: float,
    clock_skew: float,
) -> Course:
    """Return the course of the command's options.

    Every walker appears within its first half.
    """
    seconds = minutes * 60
    crowds = (StandingCrowd(seconds / 2, 0, crowd, min(30.0, seconds / 10)),) if crowd else ()
    return Course(
        cameras=cameras,
        walkers=walkers,
        seconds=seconds,
        look_alikes=look_alikes,
        look_alikes_meet=True,
        crowds=crowds,
        overlap=overlap,
        break_share=breaks,
        loss=loss,
        delay=delay_ms / 1000,
        clock_skew=clock_skew,
    )


@dataclass(frozen=True)
class TrialFailure:
    """The reason why a course was not played to its end: exit status and sentence."""

    status: int
    sentence: str


def _play(
    mqtt: MqttSettings, names: list[str], course: Course, *, site: str, space: str, speed: float, seed: int
) -> tuple["Trial", TrialFailure | None]:
    """Play the course; raises CannotRunError if it cannot start."""
    # Imported here, because the metrics bring pandas: half a second that other commands do not need.
    try:
        from .cameras import SimulatedCameras  # noqa: PLC0415
        from .trial import Trial, real_pace  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CannotRunError(f"{error.name} is not installed: {how_to_install('simulate')}") from error

    info = DeviceInfo(
        site_id=site, software="wfm-fleet simulate", spaces={space: SpaceInfo(dimension=course.dimension)}
    )
    trial: Trial | None = None
    failure: TrialFailure | None = None
    try:
        with SimulatedCameras(mqtt, names, info) as cameras:
            prepared = Trial(course, cameras, space, real_pace(speed, time.monotonic))
            prepared.await_tracker(np.random.default_rng([seed, 1]))
            trial = prepared
            failure = _run_course(trial, course, seed)
    except KeyboardInterrupt:
        if trial is None:
            _fail(STOPPED, "stopped before the course started")
        failure = TrialFailure(STOPPED, "stopped: the table shows the part that was played")
    trial.finish()
    return trial, failure


def _run_course(trial: "Trial", course: Course, seed: int) -> TrialFailure | None:
    try:
        with ProgressBar(Console(stderr=True), "playing", int(course.seconds)) as bar:
            trial.run_course(np.random.default_rng(seed), bar)
    except CannotRunError as error:
        return TrialFailure(CANNOT_RUN, str(error))
    return None


def _fail(status: int, sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(status)


def _table(score: "TrackingScore", trial: "Trial") -> Table:
    rows = {
        "IDF1": f"{score.idf1:.4f}",
        "ID switches": score.switches,
        "fragmentations": score.fragmentations,
        "ids that two people have (merged)": score.merged,
        "ids given to two people, if only once (mixed)": score.mixed,
        "ids given to a stranger (reused)": score.reused,
        "people with more than one id": score.split,
        "people": score.walkers,
        "global ids": score.ids,
        "observations sent": score.observations,
        "answered": score.answered,
    }
    delays = sorted(trial.delays)
    if delays:
        rows["answer, p50 / p99 ms"] = (
            f"{_percentile_ms(delays, 0.5):.1f} / {_percentile_ms(delays, 0.99):.1f}"
        )
    if trial.counts["late"]:
        rows["sent more than 1 s late"] = trial.counts["late"]
    if trial.counts["unexpected"]:
        rows["answers without an observation"] = trial.counts["unexpected"]
    if trial.global_ids:
        rows["global ids in the registry, from, to"] = f"{min(trial.global_ids)}, {max(trial.global_ids)}"
    table = Table(title="Tracking score", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _percentile_ms(ranked: list[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000


def _check_id(kind: Any, text: str, option: str) -> str:
    try:
        value: str = TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is not a valid id", param_hint=f"--{option}") from error
    return value
