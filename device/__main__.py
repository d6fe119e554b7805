"""Run a camera, simulate many, or list rejected events: `python -m device`."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from broker_bridge.common.programs.program import Program

PROGRAM = Program(
    "wfm-device",
    "A camera that recognises faces, and its tools.",
    "device",
    ("annotate", "build-engine", "compare", "doctor", "enroll", "rejected", "replay", "run", "simulate"),
)

with PROGRAM.imports():
    import typer

    from broker_bridge.common.clock import utc_now
    from broker_bridge.common.logs import configure_logging
    from broker_bridge.common.programs.cli import Config, VersionOption
    from broker_bridge.common.programs.signals import Reload, on_hangup
    from broker_bridge.common.settings import LogSettings, MqttSettings, Settings, load_settings
    from broker_bridge.common.watchdog import end_within
    from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
    from broker_bridge.contract.heartbeat import HEARTBEAT_SECONDS

    from .bootstrap import build, database_path, sole_owner
    from .cli.annotate import annotate
    from .cli.build_engine import build_engine
    from .cli.common import config_file, exit_on_error
    from .cli.compare import compare
    from .cli.doctor import doctor
    from .cli.enroll import enroll
    from .cli.replay import replay
    from .mqtt.config import check_tls_files
    from .settings import DeviceSettings
    from .simulator import Simulator, SimulatorOptions
    from .store.connection import StoreError
    from .store.db_manager import DatabaseManager
    from .store.outbox import Outbox

app = typer.Typer(add_completion=False, help=PROGRAM.about)
rejected = typer.Typer(help="Events that the bridge rejected.")
app.add_typer(rejected, name="rejected")
app.command()(annotate)
app.command()(build_engine)
app.command()(compare)
app.command()(doctor)
app.command()(enroll)
app.command()(replay)

ExitAtEnd = Annotated[bool, typer.Option("--exit-at-end", help="End after a file's last frame.")]


class SimulatorSettings(Settings):
    """The part of the configuration that `simulate` reads."""

    mqtt: MqttSettings = MqttSettings()
    log: LogSettings = LogSettings()


def on_signal(*actions: Callable[[], None]) -> None:
    """Call `actions` at SIGTERM and SIGINT, each in a thread of its own.

    A handler interrupts the main thread, which may hold the lock that an action takes.
    """

    def handle(_number: int, _frame: object) -> None:
        for action in actions:
            threading.Thread(target=action, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    config: Config = None,
    exit_at_end: ExitAtEnd = False,
    _version: VersionOption = False,
) -> None:
    """Run the camera if no command is given."""
    context.obj = config
    if context.invoked_subcommand is None:
        run(context, config, exit_at_end)


@app.command()
def run(context: typer.Context, config: Config = None, exit_at_end: ExitAtEnd = False) -> None:
    """Recognise faces at a camera and follow the registry, until SIGTERM."""
    with exit_on_error():
        file = config_file(context, config)
        settings = load_settings(DeviceSettings, file, os.environ)
        check_tls_files(settings.mqtt)
        configure_logging(settings.log)
        with sole_owner(settings.device.data_dir):
            program = build(settings)
            on_signal(program.request_stop, end_within)
            # A connection reads its certificates itself; here they are checked.
            on_hangup(Reload(DeviceSettings, file, os.environ, lambda changed: check_tls_files(changed.mqtt)))
            program.run(exit_at_end=exit_at_end)


@app.command()
def simulate(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    config: Config = None,
    devices: Annotated[int, typer.Option(min=1, max=999)] = 1,
    prefix: str = "sim",
    site: str = "lobby",
    rate: Annotated[float, typer.Option(min=0, help="Events a second over all devices; 0: no pause.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Events over all devices; 0: without end.")] = 0,
    data_dir: Path = Path("data/simulator"),
    image_kb: Annotated[int, typer.Option(min=0, max=190)] = 0,
    space: str = DEFAULT_FACE_SPACE.space,
    dimension: Annotated[int, typer.Option(min=1, max=4096)] = DEFAULT_FACE_SPACE.dimension,
    ledger: Annotated[Path | None, typer.Option(help="Each event id, once the outbox has it.")] = None,
    settle_seconds: Annotated[float, typer.Option(min=0, help="Wait so long for receipts.")] = 30.0,
    heartbeat_seconds: Annotated[float, typer.Option(min=0.1)] = HEARTBEAT_SECONDS,
) -> None:
    """Simulate devices without cameras; print a summary as JSON.

    The status is 1 if events have no receipt at the end. With a password and no user name in the settings,
    each device logs in under its own id.
    """
    with exit_on_error():
        settings = load_settings(SimulatorSettings, config_file(context, config), os.environ)
        check_tls_files(settings.mqtt)
        configure_logging(settings.log)
        options = SimulatorOptions(
            devices, prefix, site, rate, count, data_dir, image_kb, space, dimension, ledger,
            settle_seconds, heartbeat_seconds,
        )  # fmt: skip
        with sole_owner(data_dir):
            simulator = Simulator(settings.mqtt, options)
            on_signal(simulator.request_stop)
            on_hangup()
            summary = simulator.run()
    typer.echo(summary.to_json())
    if summary.pending:
        raise typer.Exit(1)


@contextmanager
def _outbox(config: Path | None) -> Iterator[Outbox]:
    settings = load_settings(DeviceSettings, config, os.environ)
    file = database_path(settings)
    if not file.exists():
        raise StoreError(f"{file}: does not exist; expected the data folder of a device that has run here")
    db = DatabaseManager(file, settings.device.dev_mode)
    db.connection.open()
    try:
        yield Outbox(db.connection, utc_now=utc_now, source=random.Random())  # noqa: S311
    finally:
        db.close()


@rejected.command("list")
def list_rejected(context: typer.Context, config: Config = None) -> None:
    """Print id, code, time and detail of each rejected event.

    The command may run while the device runs.
    """
    with exit_on_error(), _outbox(config_file(context, config)) as outbox:
        for event in outbox.rejected():
            typer.echo(f"{event.event_id}  {event.code}  {event.rejected_at}  {event.detail}")


@rejected.command()
def requeue(
    context: typer.Context,
    event_ids: Annotated[list[str] | None, typer.Argument(help="Event ids; none: all.")] = None,
    config: Config = None,
) -> None:
    """Queue rejected events again, after their cause is corrected.

    The command may run while the device runs.
    """
    with exit_on_error(), _outbox(config_file(context, config)) as outbox:
        wanted = event_ids or [event.event_id for event in outbox.rejected()]
        typer.echo(f"{outbox.requeue(wanted)} events are queued again")


def main() -> None:
    PROGRAM.run(app)


if __name__ == "__main__":
    main()
