"""The command `new-epoch`, to be run after a backup was restored."""

import os

import typer

from broker_bridge.common.event_loop import run_bounded
from broker_bridge.common.programs.cli import Config
from broker_bridge.common.settings import load_settings
from broker_bridge.registry import Registry
from broker_bridge.registry.mongo.versions import History
from dashboard_api.command_line import exit_on_operator_errors
from dashboard_api.settings import ApiProgram


def new_epoch(context: typer.Context, config: Config = None) -> None:
    """Begin an epoch after a backup was restored: every device syncs a snapshot."""
    with exit_on_operator_errors():
        history = run_bounded(begin(load_settings(ApiProgram, config or context.obj, os.environ)))
    typer.echo(f"epoch {history.epoch} begins at version {history.version}; every device syncs a snapshot")


async def begin(program: ApiProgram) -> History:
    """Begin an epoch and return it. Raises RegistryUnavailableError."""
    registry = await Registry.open(program.mongo)
    try:
        return await registry.versions.begin_epoch()
    finally:
        await registry.close()
