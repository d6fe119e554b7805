"""Run `wfm-fleet device`: decommission and move devices."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from broker_bridge.common.programs.cli import Config
from broker_bridge.contract.ids import DEVICE_ID

from .api_client import ApiClient
from .common import exit_on_error, open_api
from .errors import ApiRefusedError, CannotRunError


def _checked_id(value: str) -> str:
    if not DEVICE_ID.match(value):
        raise typer.BadParameter("expected an id of lower-case letters, digits and hyphens, as in cam-001")
    return value


DeviceArgument = Annotated[
    str, typer.Argument(metavar="DEVICE", help="Device id, for example cam-001.", callback=_checked_id)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def decommission_device(
    context: typer.Context, device_id: DeviceArgument, yes: Yes = False, config: Config = None
) -> None:
    """Decommission a device that is broken or gone.

    It is not served any more, and no deletion waits for it. Its gallery stays on its own disk: wipe it if you
    have it. Needs a key of an admin. Status 0: done; 1: not confirmed; 2: it could not run.
    """
    if not yes:
        typer.confirm(f"Decommission {device_id}? Its reports are deleted", abort=True)
    _do(context, config, lambda api: api.decommission_device(device_id))
    typer.echo(f"{device_id} is decommissioned")


def move_device(
    context: typer.Context,
    device_id: DeviceArgument,
    site_id: Annotated[
        str, typer.Argument(metavar="SITE", help="The new site, for example gate.", callback=_checked_id)
    ],
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Move a device to another site, whose gallery it gets by a snapshot sync.

    Its own settings have to name the new site too. Needs a key of an admin. Status 0: done; 1: not confirmed;
    2: it could not run.
    """
    if not yes:
        typer.confirm(f"Move {device_id} to site {site_id}? Its calibration is deleted", abort=True)
    _do(context, config, lambda api: api.move_device(device_id, site_id))
    typer.echo(f"{device_id} is at site {site_id}: set WFM_DEVICE__SITE={site_id} on it and start it again")


def _do(context: typer.Context, config: Config, change: Callable[[ApiClient], None]) -> None:
    with exit_on_error(), open_api(context, config, Console(stderr=True)) as api:
        try:
            change(api)
        except ApiRefusedError as error:
            raise CannotRunError(f"the API at {api.url} refuses ({error.status}): {error.detail}") from error
