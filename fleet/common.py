"""Share settings, the API client and the error output between the commands."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from broker_bridge.common.settings import SettingsError, load_settings

from .api_client import ApiClient
from .errors import CannotRunError
from .settings import FleetSettings

CANNOT_RUN = 2
STOPPED = 130


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an operator's error and exit with status 2, without a traceback."""
    try:
        yield
    except (SettingsError, CannotRunError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(CANNOT_RUN) from error


def open_api(context: typer.Context, config: Path | None, console: Console) -> ApiClient:
    """Return a client for the API of the settings.

    Raises SettingsError or CannotRunError.
    """
    file = config or context.find_object(Path)
    settings = load_settings(FleetSettings, file, os.environ).fleet
    return ApiClient(
        settings,
        report=lambda sentence: console.print(Text(sentence), soft_wrap=True),
        sleep=time.sleep,
        clock=time.monotonic,
        source=random.Random(),  # noqa: S311  # spreads retries, guards nothing
    )
