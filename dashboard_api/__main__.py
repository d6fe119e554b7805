"""`python -m dashboard_api --config FILE`: serve, or make a further API key."""

import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from broker_bridge.common.logs import configure_logging
from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.registry import Registry, RegistryUnavailableError
from broker_bridge.registry.api_keys import Role

from .bootstrap import wired
from .server import Server, listen
from .settings import ApiProgram

app = typer.Typer(add_completion=False, help="The REST API and the dashboard page of WFM Fleet.")

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings as JSON; WFM_* variables go over them.")
]


@contextmanager
def _sentences() -> Iterator[None]:
    """What an operator can mend ends the program with its sentences and status 2, not with a traceback."""
    try:
        yield
    except (SettingsError, RegistryUnavailableError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@app.callback(invoke_without_command=True)
def run(context: typer.Context, config: Config = None) -> None:
    """Without a command: serve until SIGTERM or Ctrl-C."""
    context.obj = config
    if context.invoked_subcommand:
        return
    with _sentences():
        program = load_settings(ApiProgram, config, os.environ)
        configure_logging(program.log)
        asyncio.run(serve(program))


@app.command("new-key")
def new_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = "viewer",
    device: Annotated[str | None, typer.Option(help="Which device's, for the role edge.")] = None,
    config: Config = None,
) -> None:
    """Make an API key and print it, once: only its hash is kept."""
    if (role == "edge") != (device is not None):
        raise typer.BadParameter("a key of the role edge is a device's, no other is: --role edge --device ID")
    with _sentences():
        # `--config` may stand before the command as well.
        program = load_settings(ApiProgram, config or context.find_object(Path), os.environ)
        typer.echo(asyncio.run(make_key(program, name, role, device)))


async def serve(program: ApiProgram) -> None:
    """Serve until a signal; raises SettingsError or RegistryUnavailableError, in sentences."""
    with listen(program.api.host, program.api.port) as sock:
        async with wired(program) as served:
            # What is there by now stays: a bulk of people need not be interrupted to look for rubbish in it.
            gc.freeze()
            gc.set_threshold(50_000, 20, 20)
            await Server(served, program).serve(sockets=[sock])


async def make_key(program: ApiProgram, name: str, role: Role, device_id: str | None = None) -> str:
    """The text of a new key; raises RegistryUnavailableError, or SettingsError for an unknown device."""
    registry = await Registry.open(program.mongo)
    try:
        if program.api.bootstrap_key is not None:
            # Else this key would be the first, and the configured one would never be made.
            await registry.api_keys.ensure_first(program.api.bootstrap_key.get_secret_value())
        if device_id is not None and device_id not in await registry.devices.known([device_id]):
            raise SettingsError([f"{device_id} is not registered: register it under /api/v1/devices first"])
        return await registry.api_keys.create(name, role, device_id=device_id)
    finally:
        await registry.close()


def main() -> None:
    app()


if __name__ == "__main__":
    main()
