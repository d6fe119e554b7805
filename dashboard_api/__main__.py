"""`python -m dashboard_api --config FILE`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from broker_bridge.contract.logs import configure_logging
from broker_bridge.contract.settings import SettingsError, load_settings
from broker_bridge.registry import RegistryUnavailableError

from .bootstrap import wired
from .server import Server, listen
from .settings import ApiProgram


async def serve(program: ApiProgram) -> None:
    """Serve until a signal; raises SettingsError or RegistryUnavailableError, in sentences."""
    with listen(program.api.host, program.api.port) as sock:
        async with wired(program) as app:
            await Server(app, program).serve(sockets=[sock])


def run(
    config: Annotated[
        Path | None, typer.Option(help="Settings as JSON; WFM_* variables go over them")
    ] = None,
) -> None:
    """The REST API and the dashboard page of WFM Fleet."""
    try:
        program = load_settings(ApiProgram, config, os.environ)
        configure_logging(program.log)
        asyncio.run(serve(program))
    except SettingsError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        raise typer.Exit(2) from error
    except RegistryUnavailableError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


def main() -> None:
    typer.run(run)


if __name__ == "__main__":
    main()
