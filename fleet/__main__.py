"""Run `wfm-fleet`, also as `python -m fleet`: import and export identities."""

import typer

from .common import Config
from .devices import decommission_device, move_device
from .identity_export import export_identities
from .identity_import import import_identities
from .tracks.command import simulate_tracks

app = typer.Typer(
    rich_markup_mode="markdown",
    add_completion=False,
    no_args_is_help=True,
    help="Import and export the people enrolled in WFM Fleet, through its REST API.",
    epilog="Settings: WFM_FLEET__API_URL, WFM_FLEET__API_KEY, WFM_FLEET__CA_FILE, or --config FILE.",
)
identity = typer.Typer(no_args_is_help=True, help="People: import and export.")
app.add_typer(identity, name="identity")
identity.command("import")(import_identities)
identity.command("export")(export_identities)
device = typer.Typer(no_args_is_help=True, help="Devices: decommission and move.")
app.add_typer(device, name="device")
device.command("decommission")(decommission_device)
device.command("move")(move_device)
simulate = typer.Typer(
    rich_markup_mode="markdown", no_args_is_help=True, help="Simulate load on a trial fleet."
)
app.add_typer(simulate, name="simulate")
simulate.command("tracks")(simulate_tracks)


@app.callback()
def settings(context: typer.Context, config: Config = None) -> None:
    context.obj = config


def main() -> None:
    app()


if __name__ == "__main__":
    main()
