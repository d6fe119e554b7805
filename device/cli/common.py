"""What the commands have in common: where the configuration comes from, and how mistakes are said."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from broker_bridge.common.settings import SettingsError
from device.bootstrap import AlreadyRunningError
from device.recordings.format import RecordingError
from device.store.connection import StoreError
from device.vision.capture.sources import CameraError
from device.vision.inference.session import ModelError

Config = Annotated[Path | None, typer.Option("--config", help="JSON file; the environment goes before it.")]


@contextmanager
def exit_on_error() -> Iterator[None]:
    """What an operator can mend ends the program with its sentence and status 2, not with a traceback."""
    try:
        yield
    except (
        SettingsError,
        StoreError,
        AlreadyRunningError,
        ModelError,
        CameraError,
        RecordingError,
    ) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def config_file(context: typer.Context, config: Path | None) -> Path | None:
    """The configuration file, whether `--config` stood after the command or before it."""
    return config or context.find_object(Path)
