"""Run the embed worker for the photos of an external catalog (seed 001)."""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from broker_bridge.common.programs.program import Program

PROGRAM = Program(
    "wfm-embed-worker", "Turns photos of an external catalog into face vectors for the registry.", "worker"
)

with PROGRAM.imports():
    import typer
    from rich.console import Console

    from broker_bridge.common.event_loop import run_bounded
    from broker_bridge.common.logs import configure_logging
    from broker_bridge.common.programs.cli import Config, VersionOption
    from broker_bridge.common.programs.signals import Reload, on_hangup
    from broker_bridge.common.settings import SettingsError, load_settings
    from broker_bridge.common.watchdog import end_within
    from broker_bridge.contract.spaces import SpaceRecord
    from device.vision.inference.session import ModelError

    from .embedding.bootstrap import load_photo_embedder, open_worker, silence_request_logs
    from .embedding.errors import (
        AccessRefusedError,
        RequestRefusedError,
        ServiceUnavailableError,
        SpaceRefusedError,
    )
    from .embedding.photos import PhotoFaceEmbedder
    from .embedding.progress import BarReporter, LogReporter, Reporter
    from .embedding.settings import WorkerSection, WorkerSettings
    from .embedding.worker import RunSummary

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

Once = Annotated[
    bool, typer.Option("--once", help="End when no job waits, with a summary as JSON on standard output.")
]


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Print an operator's error and exit with status 2, without a traceback."""
    try:
        yield
    except (SettingsError, ModelError, AccessRefusedError, RequestRefusedError, SpaceRefusedError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@app.command()
def work(config: Config = None, once: Once = False, _version: VersionOption = False) -> None:
    """Turn photos of an external catalog into face vectors for the registry.

    The worker takes jobs of type face_detect_embed from the backend, fetches their photos from the catalog
    into memory, sends the vectors and drops the photos: no photo is written or passed on. Any number of
    workers may run; another worker finishes the job of one that stopped.

    The settings are the section `worker` of the file, or the environment. Required: WFM_WORKER__BACKEND_URL,
    WFM_WORKER__BACKEND_KEY (an API key with the role `source`) and WFM_WORKER__CATALOG_URL.

    Status 0: done, or stopped by SIGTERM. 1: with --once, a job was not finished by this worker, or the
    backend was unavailable for too long. 2: wrong settings, a model that fails or differs from the backend's
    record of its space, or a key that a server rejects.
    """
    _disable_core_dumps()
    with _exit_on_error():
        settings = load_settings(WorkerSettings, config, os.environ)
        configure_logging(settings.log)
        silence_request_logs()
        reload = Reload(WorkerSettings, config, os.environ, lambda _: silence_request_logs())
        on_hangup(reload)
        embedder, record = load_photo_embedder(settings.worker)
        try:
            summary = run_bounded(_work(settings.worker, embedder, record, once=once))
        except ServiceUnavailableError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
    if once:
        typer.echo(json.dumps(summary.document()))
        if not summary.is_clean:
            raise typer.Exit(1)


def _disable_core_dumps() -> None:
    """Disable core dumps: a crash must not write the photos in memory to disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def _work(
    worker: WorkerSection, embedder: PhotoFaceEmbedder, record: SpaceRecord, *, once: bool
) -> RunSummary:
    """Run the worker until no job waits, or until SIGTERM or Ctrl-C."""
    async with open_worker(worker, embedder, record, _reporter(), once=once) as program:
        task = asyncio.ensure_future(program.process_jobs(once=once))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            end_within()
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
        return program.summary


def _reporter() -> Reporter:
    return BarReporter(Console(stderr=True)) if sys.stderr.isatty() else LogReporter()


def main() -> None:
    PROGRAM.run(app)


if __name__ == "__main__":
    main()
