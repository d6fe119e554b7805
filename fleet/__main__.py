"""Run `wfm-fleet`, also as `python -m fleet`: import and export identities."""

from broker_bridge.common.programs.program import Program

PROGRAM = Program(
    "wfm-fleet",
    "Import and export the people enrolled in WFM Fleet, manage its devices, and measure its models.",
    "fleet",
    ("identity", "device", "model", "restore", "simulate"),
    is_service=False,
)

with PROGRAM.imports():
    import typer

    from broker_bridge.common.programs.cli import Config, VersionOption

    from .devices import decommission_device, move_device
    from .identity_export import export_identities
    from .identity_import import import_identities
    from .model.calibrate import calibrate
    from .model.evaluate import evaluate
    from .model.migrate import migrate
    from .model.spaces import add_model, list_models, remove_model
    from .restore import restore
    from .tracks.command import simulate_tracks

app = typer.Typer(
    rich_markup_mode="markdown",
    add_completion=False,
    no_args_is_help=True,
    help=PROGRAM.about,
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
model = typer.Typer(
    rich_markup_mode="markdown", no_args_is_help=True, help="Embedding models: evaluate, calibrate, record."
)
app.add_typer(model, name="model")
model.command("evaluate")(evaluate)
model.command("calibrate")(calibrate)
model.command("add")(add_model)
model.command("list")(list_models)
model.command("remove")(remove_model)
model.command("migrate")(migrate)
app.command("restore")(restore)
simulate = typer.Typer(
    rich_markup_mode="markdown", no_args_is_help=True, help="Simulate load on a trial fleet."
)
app.add_typer(simulate, name="simulate")
simulate.command("tracks")(simulate_tracks)


@app.callback()
def settings(context: typer.Context, config: Config = None, _version: VersionOption = False) -> None:
    context.obj = config


def main() -> None:
    PROGRAM.run(app)


if __name__ == "__main__":
    main()
