"""`python -m device.embed_worker`: photos of an outside catalog become vectors in the registry (seed 001)."""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from broker_bridge.common.logs import configure_logging
from broker_bridge.common.settings import SettingsError, load_settings
from device.vision.inference.session import ModelError

from .embedding.bootstrap import load_photo_embedder, open_worker, quiet_requests
from .embedding.errors import AccessRefusedError, AwayError, RequestRefusedError
from .embedding.photos import VectorMaker
from .embedding.progress import BarReporter, LogReporter, Reporter
from .embedding.settings import WorkerSection, WorkerSettings
from .embedding.worker import RunSummary

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

Config = Annotated[Path | None, typer.Option("--config", help="JSON file; the environment goes before it.")]
Once = Annotated[
    bool, typer.Option("--once", help="End when no job waits, with a summary as JSON on standard output.")
]


@contextmanager
def _sentences() -> Iterator[None]:
    """What an operator can mend ends the program with its sentence and status 2, not with a traceback."""
    try:
        yield
    except (SettingsError, ModelError, AccessRefusedError, RequestRefusedError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@app.command()
def work(config: Config = None, once: Once = False) -> None:
    """Turn photos of an outside catalog into face vectors for the registry.

    Takes jobs of type face_detect_embed from the backend, fetches their photos from the catalog into memory,
    sends the vectors, and forgets the photos: none is ever written or passed on. Any number of workers may
    run side by side; what one leaves behind, another finishes.

    Settings are the section `worker` of the file, or the environment. Needed: WFM_WORKER__BACKEND_URL,
    WFM_WORKER__BACKEND_KEY (an API key with the role `source`) and WFM_WORKER__CATALOG_URL.

    Status 0: done, or stopped by SIGTERM. 1: with --once, a job was not finished here, or the backend was
    away for too long. 2: settings, a model, or a key that a server refuses.
    """
    _keep_to_itself()
    with _sentences():
        settings = load_settings(WorkerSettings, config, os.environ)
        configure_logging(settings.log)
        quiet_requests()
        embedder = load_photo_embedder(settings.worker)
        try:
            summary = asyncio.run(_work(settings.worker, embedder, once=once))
        except AwayError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
    if once:
        typer.echo(json.dumps(summary.document()))
        if not summary.is_clean:
            raise typer.Exit(1)


def _keep_to_itself() -> None:
    """Leave no traces but logs."""
    # A crash would otherwise write the photos in memory to disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def _work(worker: WorkerSection, embedder: VectorMaker, *, once: bool) -> RunSummary:
    """Until no job waits, or SIGTERM or Ctrl-C."""
    async with open_worker(worker, embedder, _reporter(), once=once) as program:
        task = asyncio.ensure_future(program.run(once=once))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
        return program.summary


def _reporter() -> Reporter:
    return BarReporter(Console(stderr=True)) if sys.stderr.isatty() else LogReporter()


def main() -> None:
    app()


if __name__ == "__main__":
    main()
