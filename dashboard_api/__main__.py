"""Run `python -m dashboard_api --config FILE`: serve, or create an API key."""

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

from .bootstrap import open_app
from .server import Server, listen
from .settings import ApiProgram

app = typer.Typer(add_completion=False, help="The REST API and the dashboard page of WFM Fleet.")

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings as JSON; WFM_* variables go over them.")
]


@contextmanager
def _exit_on_operator_errors() -> Iterator[None]:
    """Exit with status 2 and the sentences of a settings or registry error."""
    try:
        yield
    except (SettingsError, RegistryUnavailableError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@app.callback(invoke_without_command=True)
def run(context: typer.Context, config: Config = None) -> None:
    """Serve until SIGTERM or Ctrl-C, unless a command is given."""
    context.obj = config
    if context.invoked_subcommand:
        return
    with _exit_on_operator_errors():
        program = load_settings(ApiProgram, config, os.environ)
        configure_logging(program.log)
        asyncio.run(serve(program))


@app.command("new-key")
def new_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    role: Annotated[Role, typer.Option(help="Role of the key.")] = "viewer",
    device: Annotated[str | None, typer.Option(help="Device of the key, for the role edge.")] = None,
    config: Config = None,
) -> None:
    """Create an API key and print it once: the registry keeps only its hash."""
    if (role == "edge") != (device is not None):
        raise typer.BadParameter("--role edge needs --device ID, and other roles take no --device")
    with _exit_on_operator_errors():
        # `--config` may stand before the command as well.
        program = load_settings(ApiProgram, config or context.find_object(Path), os.environ)
        typer.echo(asyncio.run(make_key(program, name, role, device)))


async def serve(program: ApiProgram) -> None:
    """Serve until a signal; raise SettingsError or RegistryUnavailableError."""
    with listen(program.api.host, program.api.port) as sock:
        async with open_app(program) as app:
            # Objects made so far live for good: frozen, they do not slow down bulk imports.
            gc.freeze()
            gc.set_threshold(50_000, 20, 20)
            await Server(app, program).serve(sockets=[sock])


async def make_key(program: ApiProgram, name: str, role: Role, device_id: str | None = None) -> str:
    """Return the text of a new API key.

    Raises RegistryUnavailableError, or SettingsError for an unknown device.
    """
    registry = await Registry.open(program.mongo)
    try:
        if program.api.bootstrap_key is not None:
            # Before the new key, since the configured one is created only in a database without keys.
            await registry.api_keys.ensure_first(program.api.bootstrap_key.get_secret_value())
        if device_id is not None and device_id not in await registry.devices.registered([device_id]):
            raise SettingsError([f"{device_id} is not registered: register it under /api/v1/devices first"])
        return await registry.api_keys.create(name, role, device_id=device_id)
    finally:
        await registry.close()


def main() -> None:
    app()


if __name__ == "__main__":
    main()
