"""Run `wfm-fleet identity import`: read a folder, a CSV file or JSON lines."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from broker_bridge.common.programs.cli import Config
from broker_bridge.contract.ids import SiteId, SpaceId

from .common import CANNOT_RUN, STOPPED, exit_on_error, open_api
from .errors import CannotRunError
from .import_source import ImportSource
from .importer import Importer
from .readers import open_source
from .readers.npy import NpySpaces
from .report import ImportReport, ProgressBar, RefusalFile


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


def import_identities(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(help="A folder, a table (.csv, .tsv), a .jsonl file, or - for JSON lines on stdin."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and report the result; write nothing.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write each refusal to this file, a JSON object a line.")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="A site for people without sites in the source; repeatable."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", help="The embedding space of .npy files.", callback=_space_id),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    config: Config = None,
) -> None:
    """Import people from a folder, a table, or the output of `export`.

    A folder contains USER_ID/ with photos (.jpg, .png) and vectors (.npy, float32), or files named after the
    user id; face_db, gait_db and speaker_db of a device work too. A table has the columns user_id,
    display_name, flag, sites, photo, npy. JSON lines have one person
    a line.

    A second run changes nothing, and continues an interrupted run. Status 0: everything is imported; 1:
    something was refused; 2: it could not run; 130: stopped with Ctrl-C.

    The API and its key are settings: WFM_FLEET__API_URL and WFM_FLEET__API_KEY, or section `fleet` of the
    file that --config names.
    """
    console = Console(stderr=True)
    sites = _site_ids(site or [])
    with exit_on_error(), open_api(context, config, console) as api:
        needs_consent = sys.stdin.isatty() and not (dry_run or yes or source == "-")
        if needs_consent and not typer.confirm(f"Import {source} into {api.url}?", err=True):
            raise CannotRunError("nothing was sent")
        entries = open_source(source, sites, NpySpaces(space))
        with RefusalFile.open(report) as refusals:
            outcome = ImportReport(console, refusals)
            with ProgressBar(console, "checking" if dry_run else "importing", entries.total) as bar:
                importer = Importer(api, outcome, bar, dry_run=dry_run)
                failure = _import(importer, entries)
    outcome.print(dry_run=dry_run)
    if failure is not None:
        so_far = f"; {bar.done} people were processed: run it again to continue" if bar.done else ""
        typer.echo(f"{failure[1]}{so_far}", err=True)
        raise typer.Exit(failure[0])
    if not outcome.is_clean:
        raise typer.Exit(1)


def _import(importer: Importer, entries: ImportSource) -> tuple[int, str] | None:
    """Return exit status and sentence of an import that ended early, else None."""
    try:
        importer.import_source(entries)
    except KeyboardInterrupt:
        return STOPPED, "stopped"
    except CannotRunError as error:
        return CANNOT_RUN, str(error)
    except OSError as error:
        return CANNOT_RUN, f"the source cannot be read ({error.strerror})"
    return None
