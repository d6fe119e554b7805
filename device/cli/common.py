"""Share the configuration file and the error output between the commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from broker_bridge.common.settings import SettingsError
from device.bootstrap import AlreadyRunningError
from device.recordings.format import RecordingError
from device.store.connection import StoreError
from device.vision.capture.sources import CameraError
from device.vision.inference.session import ModelError


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an operator's error and exit with status 2, without a traceback."""
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
    """Return the configuration file; `--config` may stand before or after the command."""
    return config or context.find_object(Path)
