"""`wfm-fleet`, or `python -m fleet`: people in and out of the registry from a terminal."""

import typer

from .common import Config
from .identity_export import export_people
from .identity_import import import_people
from .tracks.command import simulate_tracks

app = typer.Typer(
    rich_markup_mode="markdown",
    add_completion=False,
    no_args_is_help=True,
    help="People in and out of the registry of WFM Fleet, by way of its REST API.",
    epilog="Settings: WFM_FLEET__API_URL, WFM_FLEET__API_KEY, WFM_FLEET__CA_FILE, or --config FILE.",
)
identity = typer.Typer(no_args_is_help=True, help="People: import and export.")
app.add_typer(identity, name="identity")
identity.command("import")(import_people)
identity.command("export")(export_people)
simulate = typer.Typer(
    rich_markup_mode="markdown", no_args_is_help=True, help="Play what does not exist to a trial fleet."
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
