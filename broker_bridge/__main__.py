"""Run a bridge worker, or print the wire contract (`python -m broker_bridge`)."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

from .common.programs.program import Program

PROGRAM = Program(
    "wfm-bridge",
    "The bridge between the MQTT broker and the registry in MongoDB.",
    "backend",
    ("asyncapi",),
    least_python=(3, 11),
)

with PROGRAM.imports():
    import typer

    from .bootstrap import Bridge, open_registry
    from .common.event_loop import run_bounded
    from .common.logs import configure_logging
    from .common.programs.cli import Config, VersionOption
    from .common.programs.signals import Reload, on_hangup
    from .common.settings import SettingsError, load_settings
    from .common.watchdog import Watchdog
    from .contract.asyncapi import render
    from .contract.errors import ContractError
    from .registry import Registry, RegistryUnavailableError
    from .settings import BridgeProgram
    from .worker_group import fork_workers

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0

Workers = Annotated[
    int, typer.Option(min=1, max=64, help="Number of processes, which share the work; at most one per core.")
]

app = typer.Typer(add_completion=False, help=PROGRAM.about)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, config: Config = None, workers: Workers = 1, _version: VersionOption = False
) -> None:
    """Run a bridge worker until SIGTERM or Ctrl-C.

    Any number of workers may run beside each other, on this machine (--workers) or on others.
    """
    if context.invoked_subcommand:
        return
    try:
        settings = load_settings(BridgeProgram, config, os.environ)
        configure_logging(settings.log)
        if workers > 1:
            status = fork_workers(workers)
            if status is not None:
                raise typer.Exit(status)
        run_bounded(_run(settings, config))
    except (SettingsError, RegistryUnavailableError, ContractError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


@app.command()
def asyncapi() -> None:
    """Print the wire contract as an AsyncAPI 3.0 document."""
    print(json.dumps(render(), indent=2))


async def _run(settings: BridgeProgram, config: Path | None) -> None:
    stop = asyncio.Event()
    watchdog = Watchdog(os.environ)
    watchdog.start(asyncio.get_running_loop())
    _stop_on_signals(stop, watchdog)
    registry = await _open(settings, stop)
    if registry is None:
        _log.info("bridge stopped before the registry was open")
        return
    try:
        bridge = Bridge(registry, settings, await registry.versions.share_group())
        reload = Reload(BridgeProgram, config, os.environ, lambda _: bridge.link.renew_certificates())
        on_hangup(reload)
        _log.info("bridge started id=%s", bridge.bridge_id)
        # Objects that exist now live to the end; frozen, they spare the garbage collector 50 ms a run.
        gc.freeze()
        watchdog.ready(lambda: bridge.probe.works)
        await bridge.run(stop)
        _log.info("bridge stopped health=%r", json.dumps(bridge.health(), default=str))
    finally:
        await registry.close()


def _stop_on_signals(stop: asyncio.Event, watchdog: Watchdog) -> None:
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: object) -> None:
        # Not a handler of the loop: the watchdog must know of the signal when the loop does not turn.
        watchdog.stopping()
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


async def _open(settings: BridgeProgram, stop: asyncio.Event) -> Registry | None:
    """Return the registry, or None if `stop` was set first.

    A server in trouble may delay the opening for long.
    """
    opening = asyncio.create_task(open_registry(settings))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if opening.done():
        return opening.result()
    # Closing its connections takes a moment, which the end of the event loop would cut short.
    opening.cancel()
    await asyncio.wait({opening}, timeout=_CLOSE_SECONDS)
    return None


def main() -> None:
    """Run the `wfm-bridge` command."""
    PROGRAM.run(app)


if __name__ == "__main__":
    main()
