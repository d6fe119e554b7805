"""`wfm-fleet identity export`: everybody in the registry as JSON lines, or all about one person."""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from .api_client import ApiClient
from .common import STOPPED, Config, open_api, sentences
from .errors import ApiRefusedError, CannotRunError
from .import_source import NO_USER_ID, read_user_id
from .report import Bar


def _user_id(text: str | None) -> str | None:
    if text is not None and read_user_id(text) is None:
        raise typer.BadParameter(NO_USER_ID)
    return text


def export_people(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="The file to write, or - for standard output.")],
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Leave out templates, which are biometric data.")
    ] = False,
    person: Annotated[
        str | None,
        typer.Option("--person", help="Everything held about this person, as JSON.", callback=_user_id),
    ] = None,
    config: Config = None,
) -> None:
    """Export everybody who is not deleted as JSON lines, which `import` reads; or all about one person.

    The file appears when it is whole, readable by its owner alone. Needs a key of an operator or admin; the
    export is noted in the audit. Status 0: done; 2: it could not run; 130: broken off with Ctrl-C.
    """
    console = Console(stderr=True)
    with sentences(), open_api(context, config, console) as api:
        try:
            with _opened(file) as out:
                if person is not None:
                    out.write(api.person(person) + b"\n")
                    return
                count = _write_all(api, out, console, vectors=not no_vectors)
        except ApiRefusedError as error:
            raise CannotRunError(f"the API at {api.url} refuses ({error.status}): {error.detail}") from error
        except OSError as error:
            raise CannotRunError(f"{file}: cannot be written ({error.strerror})") from error
        except KeyboardInterrupt as error:
            typer.echo("stopped: nothing was kept", err=True)
            raise typer.Exit(STOPPED) from error
    console.print(f"{count} people exported")


def _write_all(api: ApiClient, out: BinaryIO, console: Console, *, vectors: bool) -> int:
    cursor: str | None = None
    with Bar(console, "exporting", None) as bar:
        while True:
            page = api.page(cursor, vectors=vectors)
            for item in page.items:
                out.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            bar.advance(len(page.items))
            cursor = page.next_cursor
            if cursor is None:
                return bar.done


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """Where to write to. A file takes its name when all is in it, and is gone if something went wrong."""
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    temporary = path.with_name(f".{path.name[:100]}-{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
