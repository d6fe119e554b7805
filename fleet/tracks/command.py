"""`wfm-fleet simulate tracks`: walkers who do not exist walk past cameras that do not, to try the tracker."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from broker_bridge.common.settings import MqttSettings, Settings, load_settings
from broker_bridge.contract.ids import DeviceId, SiteId, SpaceId
from broker_bridge.contract.messages import DeviceInfo, SpaceInfo
from fleet.common import CANNOT_RUN, STOPPED, Config, sentences
from fleet.errors import CannotRunError
from fleet.report import Bar

from .course import Course, StandingCrowd

if TYPE_CHECKING:
    from .metrics import TrackingScore
    from .trial import Trial

# Past this, two observations of a track could be taken for two tracks of one picture.
_FASTEST = 5.0
# In less, crowd and look-alikes find no time to look_alikes_meet.
_SHORTEST = 0.1


class TrialSettings(Settings):
    """What the command reads of the configuration; the rest are its options."""

    mqtt: MqttSettings = MqttSettings()


def simulate_tracks(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    cameras: Annotated[int, typer.Option(min=1, max=100)] = 20,
    walkers: Annotated[int, typer.Option("--people", min=1, max=10_000)] = 100,
    minutes: Annotated[float, typer.Option(min=_SHORTEST, help="Length of the course.")] = 10.0,
    speed: Annotated[float, typer.Option(min=0.1, max=_FASTEST, help="So many times as fast.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed plays the same course.")] = 1,
    site: Annotated[str, typer.Option(help="The site that the cameras say they are of.")] = "lobby",
    prefix: Annotated[str, typer.Option(help="Of the cameras' ids: PREFIX-001 and on.")] = "sim",
    space: Annotated[str, typer.Option(help="Not one of real faces.")] = "face:simulated-512",
    look_alikes: Annotated[
        float, typer.Option(min=0, max=1, help="Share of walkers who look like another one.")
    ] = 0.1,
    crowd: Annotated[int, typer.Option(min=0, help="So many on one camera, halfway.")] = 15,
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
        float, typer.Option(min=0, max=5000, help="Sent up to so late, out of order.")
    ] = 300.0,
    clock_skew: Annotated[
        float, typer.Option(min=0, max=290, help="Seconds by which clocks are off at most.")
    ] = 60.0,
    require_idf1: Annotated[float | None, typer.Option(min=0, max=1, help="Status 1 below this.")] = None,
    config: Config = None,
) -> None:
    """Let walkers who do not exist walk past cameras that do not, and see how well the tracker follows them.

    **For a trial fleet**: cameras, walkers and their vectors end up in the registry. The vectors lie in a
    space of their own (--space), so nobody real is taken for one of them. The bridge must accept the cameras:
    WFM_BRIDGE__AUTO_REGISTER, or register `sim-001` and on beforehand. To be rid of it all afterwards, see
    docs/tracking-simulator.md.

    The broker is a setting: section `mqtt` of the file that --config names, or WFM_MQTT__HOST and so on. With
    a password and no user name, each camera logs in under its own id.

    Status 0: played to the end; 1: IDF1 below --require-idf1; 2: it could not run, or the broker went away;
    130: broken off with Ctrl-C, after which the table has what there is so far.
    """
    names = [_checked(DeviceId, f"{prefix}-{number:03}", "prefix") for number in range(1, cameras + 1)]
    _checked(SiteId, site, "site")
    _checked(SpaceId, space, "space")
    course = make_course(
        cameras=cameras, walkers=walkers, minutes=minutes, look_alikes=look_alikes, crowd=crowd,
        overlap=overlap, breaks=breaks, loss=loss, delay_ms=delay_ms, clock_skew=clock_skew,
    )  # fmt: skip
    with sentences():
        settings = load_settings(TrialSettings, config or context.find_object(Path), os.environ)
        ending = _play(settings.mqtt, names, course, site=site, space=space, speed=speed, seed=seed)
    trial, status, sentence = ending
    score = trial.tally.score()
    _print(score, trial)
    if sentence:
        typer.echo(sentence, err=True)
        raise typer.Exit(status)
    if require_idf1 is not None and score.idf1 < require_idf1:
        typer.echo(f"IDF1 is {score.idf1:.4f}, required are {require_idf1:g}", err=True)
        raise typer.Exit(1)


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
    """The course of the command's options; everybody comes within its first half."""
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


def _play(
    mqtt: MqttSettings, names: list[str], course: Course, *, site: str, space: str, speed: float, seed: int
) -> tuple["Trial", int, str | None]:
    """The trial, and why it did not come to its end: status and sentence. Raises CannotRunError before."""
    # Pandas comes with the metrics: half a second that no other command should wait.
    try:
        from .cameras import SimulatedCameras  # noqa: PLC0415
        from .trial import Trial, real_pace  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CannotRunError(f"{error.name} is not installed: pip install 'wfm-fleet[simulate]'") from error

    info = DeviceInfo(
        site_id=site, software="wfm-fleet simulate", spaces={space: SpaceInfo(dimension=course.dimension)}
    )
    random, probe = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    status, sentence, began = 0, None, False
    try:
        with SimulatedCameras(mqtt, names, info) as cameras:
            trial = Trial(course, cameras, space, real_pace(speed, time.monotonic))
            trial.await_tracker(probe)
            began = True
            try:
                with Bar(Console(stderr=True), "playing", int(course.seconds)) as bar:
                    trial.run_course(random, bar)
            except CannotRunError as error:
                status, sentence = CANNOT_RUN, str(error)
    except KeyboardInterrupt as error:
        if not began:
            typer.echo("stopped before the course began", err=True)
            raise typer.Exit(STOPPED) from error
        status, sentence = STOPPED, "stopped: the table has what was played so far"
    trial.finish()
    return trial, status, sentence


def _print(score: "TrackingScore", trial: "Trial") -> None:
    delays = sorted(trial.delays)
    table = Table(title="Who was told to be whom", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
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
    if delays:
        rows["answer, p50 / p99 ms"] = f"{_at(delays, 0.5):.1f} / {_at(delays, 0.99):.1f}"
    if trial.counts["late"]:
        rows["sent more than 1 s late"] = trial.counts["late"]
    if trial.counts["unexpected"]:
        rows["answers to nothing that was asked"] = trial.counts["unexpected"]
    if trial.global_ids:
        rows["global ids in the registry, from, to"] = f"{min(trial.global_ids)}, {max(trial.global_ids)}"
    for name, value in rows.items():
        table.add_row(name, str(value))
    Console().print(table)


def _at(ranked: list[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000


def _checked(kind: Any, text: str, option: str) -> str:
    try:
        value: str = TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is no id of its kind", param_hint=f"--{option}") from error
    return value
