"""`wfm-fleet identity import`: people from a folder, a CSV file or JSON lines into the registry."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from broker_bridge.contract.ids import SiteId, SpaceId

from .common import CANNOT_RUN, STOPPED, Config, open_api, sentences
from .errors import CannotRunError
from .import_source import ImportSource
from .importing import Importer
from .readers import open_source
from .readers.npy import NpySpaces
from .report import Bar, ImportReport, RefusalFile


def _site_ids(texts: list[str]) -> list[str]:
    try:
        return [TypeAdapter(SiteId).validate_python(text) for text in texts]
    except ValidationError as error:
        raise typer.BadParameter("a site id is like lobby: small letters, digits and -") from error


def _space_id(text: str | None) -> str | None:
    try:
        return text and TypeAdapter(SpaceId).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter("a space is <modality>:<model>, for example gait:gait-256") from error


def import_people(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A folder, a .csv or .jsonl file, or - for JSON lines on stdin.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be; write nothing.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write each refusal to this file, a JSON object a line.")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="A site of people for whom the source names none; again for more."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", help="The embedding space of .npy files.", callback=_space_id),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    config: Config = None,
) -> None:
    """Import people: from folders of photos and .npy files, from a table, or as `export` wrote them.

    A folder has USER_ID/ with photos (.jpg, .png) and vectors (.npy, float32), or files that are named
    after the user id; face_db, gait_db and speaker_db of a device will do. A table has the columns user_id,
    display_name, flag, sites, photo, npy. JSON lines have one person each.

    Running it again changes nothing, and goes on where a run was broken off. Status 0: all are in; 1:
    something was refused; 2: it could not run; 130: broken off with Ctrl-C.

    The API and its key are settings: WFM_FLEET__API_URL and WFM_FLEET__API_KEY, or section `fleet` of the
    file that --config names.
    """
    console = Console(stderr=True)
    sites = _site_ids(site or [])
    with sentences(), open_api(context, config, console) as api:
        is_asked = sys.stdin.isatty() and not (dry_run or yes or source == "-")
        if is_asked and not typer.confirm(f"Import {source} into {api.url}?", err=True):
            raise CannotRunError("nothing was sent")
        people = open_source(source, sites, NpySpaces(space))
        with RefusalFile.open(report) as refusals:
            shown = ImportReport(console, refusals)
            with Bar(console, "checking" if dry_run else "importing", people.total) as bar:
                importer = Importer(api, shown, bar, dry_run=dry_run)
                ending = _run(importer, people)
    shown.print(dry_run=dry_run)
    if ending is not None:
        so_far = f"; {bar.done} people were looked at: running it again goes on" if bar.done else ""
        typer.echo(f"{ending[1]}{so_far}", err=True)
        raise typer.Exit(ending[0])
    if not shown.is_clean:
        raise typer.Exit(1)


def _run(importer: Importer, people: ImportSource) -> tuple[int, str] | None:
    """The exit status and the sentence of an import that did not come to its end."""
    try:
        importer.run(people)
    except KeyboardInterrupt:
        return STOPPED, "stopped"
    except CannotRunError as error:
        return CANNOT_RUN, str(error)
    except OSError as error:
        return CANNOT_RUN, f"the source cannot be read ({error.strerror})"
    return None
