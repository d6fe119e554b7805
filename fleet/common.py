"""What the commands have in common: settings, the way to the API, and how mistakes are said."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from broker_bridge.common.settings import SettingsError, load_settings

from .api_client import ApiClient
from .errors import CannotRunError
from .settings import FleetSettings

Config = Annotated[Path | None, typer.Option("--config", help="JSON file; the environment goes before it.")]

CANNOT_RUN = 2
STOPPED = 130


@contextmanager
def sentences() -> Iterator[None]:
    """What an operator can mend ends the program with its sentence and status 2, not with a traceback."""
    try:
        yield
    except (SettingsError, CannotRunError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(CANNOT_RUN) from error


def open_api(context: typer.Context, config: Path | None, console: Console) -> ApiClient:
    """The API of the settings; raises SettingsError or CannotRunError."""
    file = config or context.find_object(Path)
    settings = load_settings(FleetSettings, file, os.environ).fleet
    return ApiClient(
        settings,
        say=lambda sentence: console.print(Text(sentence), soft_wrap=True),
        sleep=time.sleep,
        clock=time.monotonic,
        source=random.Random(),  # noqa: S311  # spreads retries, guards nothing
    )
