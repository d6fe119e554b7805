"""Options that every command line of ours has."""

from pathlib import Path
from typing import Annotated

import typer

from .version import version


def _print_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(f"{context.find_root().info_name} {version()}")
        raise typer.Exit


Config = Annotated[
    Path | None,
    typer.Option("--config", help="JSON file; environment variables (WFM_MQTT__HOST, ...) go over it."),
]
VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
]
