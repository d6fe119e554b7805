"""Run `wfm-fleet restore`: begin an epoch after a backup was restored."""

from typing import Annotated

import typer
from rich.console import Console

from broker_bridge.common.programs.cli import Config

from .common import exit_on_error, open_api
from .errors import ApiRefusedError, CannotRunError

_WHAT_HAPPENS = (
    "Run this after `mongorestore`, with bridge and API started again. It begins an epoch: every device "
    "drops what the backup does not have and syncs a snapshot; no confirmation from before counts."
)


def restore(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
) -> None:
    """Make every device sync a snapshot of a registry that was restored from a backup.

    The backup itself is restored by `mongorestore` before. Needs a key of an admin. Status 0: done;
    1: not confirmed; 2: it could not run.
    """
    typer.echo(_WHAT_HAPPENS)
    with exit_on_error(), open_api(context, config, Console(stderr=True)) as api:
        if not yes:
            typer.confirm(f"Begin an epoch in the registry of {api.url}?", abort=True)
        try:
            begun = api.begin_epoch()
        except ApiRefusedError as error:
            raise CannotRunError(f"the API at {api.url} refuses ({error.status}): {error.detail}") from error
    typer.echo(f"epoch {begun.epoch} begins at version {begun.version}; every device syncs a snapshot")
