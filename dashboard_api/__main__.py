"""Run `python -m dashboard_api --config FILE`: serve, or manage API keys."""

import asyncio
import gc
import os

from broker_bridge.common.programs.program import Program

PROGRAM = Program(
    "wfm-api",
    "The REST API and the dashboard page of WFM Fleet.",
    "backend",
    ("new-key", "list-keys", "revoke-key"),
)

with PROGRAM.imports():
    import typer

    from broker_bridge.common.event_loop import run_bounded
    from broker_bridge.common.logs import configure_logging
    from broker_bridge.common.programs.cli import Config, VersionOption
    from broker_bridge.common.programs.signals import Reload, on_hangup
    from broker_bridge.common.settings import load_settings
    from broker_bridge.common.watchdog import Watchdog

    from .bootstrap import open_app
    from .command_line import exit_on_operator_errors
    from .keys.commands import add_key_commands
    from .server import Server, listen, set_server_log
    from .settings import ApiProgram

app = typer.Typer(add_completion=False, help=PROGRAM.about)
add_key_commands(app)


@app.callback(invoke_without_command=True)
def run(context: typer.Context, config: Config = None, _version: VersionOption = False) -> None:
    """Serve until SIGTERM or Ctrl-C, unless a command is given."""
    context.obj = config
    if context.invoked_subcommand:
        return
    with exit_on_operator_errors():
        program = load_settings(ApiProgram, config, os.environ)
        configure_logging(program.log)
        reload = Reload(ApiProgram, config, os.environ, lambda changed: set_server_log(changed.log.level))
        on_hangup(reload)
        run_bounded(serve(program))


async def serve(program: ApiProgram) -> None:
    """Serve until a signal; raise SettingsError or RegistryUnavailableError."""
    watchdog = Watchdog(os.environ)
    watchdog.start(asyncio.get_running_loop())
    with listen(program.api.host, program.api.port) as sock:
        async with open_app(program) as app:
            # Objects made so far live for good: frozen, they do not slow down bulk imports.
            gc.freeze()
            gc.set_threshold(50_000, 20, 20)
            await Server(app, program, watchdog).serve(sockets=[sock])


def main() -> None:
    PROGRAM.run(app)


if __name__ == "__main__":
    main()
