"""Run `wfm-fleet identity export`.

The command writes all identities as JSON lines, or one identity in full.
"""

import json
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from broker_bridge.common.programs.cli import Config

from .api_client import ApiClient
from .common import STOPPED, exit_on_error, open_api
from .errors import ApiRefusedError, CannotRunError
from .import_source import NO_USER_ID, read_user_id
from .output_file import open_output
from .report import ProgressBar


def _user_id(text: str | None) -> str | None:
    if text is not None and read_user_id(text) is None:
        raise typer.BadParameter(NO_USER_ID)
    return text


def export_identities(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="The file to write, or - for standard output.")],
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Leave out templates, which are biometric data.")
    ] = False,
    user_id: Annotated[
        str | None,
        typer.Option(
            "--person", help="Everything stored about the person with this id, as JSON.", callback=_user_id
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Export all people that are not deleted as JSON lines, which `import` reads.

    Or all about one person.
    The file appears once it is complete, readable by its owner alone; a pipe and the null device are written
    through, and links are followed. Needs a key of an operator or admin;
    the export is noted in the audit. Status 0: done; 2: it could not run; 130: stopped with Ctrl-C.
    """
    console = Console(stderr=True)
    with exit_on_error(), open_api(context, config, console) as api:
        try:
            with open_output(file) as out:
                if user_id is not None:
                    out.write(api.export_identity(user_id) + b"\n")
                    return
                count = _write_all(api, out, console, vectors=not no_vectors)
        except ApiRefusedError as error:
            raise CannotRunError(f"the API at {api.url} refuses ({error.status}): {error.detail}") from error
        except OSError as error:
            raise CannotRunError(f"{file}: cannot be written ({error.strerror})") from error
        except KeyboardInterrupt as error:
            typer.echo("stopped: nothing was written", err=True)
            raise typer.Exit(STOPPED) from error
    console.print(f"{count} people exported")


def _write_all(api: ApiClient, out: BinaryIO, console: Console, *, vectors: bool) -> int:
    cursor: str | None = None
    with ProgressBar(console, "exporting", None) as bar:
        while True:
            page = api.export_page(cursor, vectors=vectors)
            for item in page.items:
                out.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            bar.advance(len(page.items))
            cursor = page.next_cursor
            if cursor is None:
                return bar.done
