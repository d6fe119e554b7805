"""Run a program's commands: what all programs do alike around their own work.

Needs none of the optional packages: a program that lacks its own still shows help and version.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO, cast

from broker_bridge.common.masking import MaskedStream, mask

from .version import how_to_install, version

CANNOT_RUN = 2
_OURS = ("broker_bridge", "device", "dashboard_api", "fleet", "deploy", "tests")


@dataclass(frozen=True)
class Program:
    """What a program is called, what it is, and its commands.

    `extra` names the packages that it needs, `least_python` the version. A program that `is_service` handles
    its signals itself.
    """

    name: str
    about: str
    extra: str
    commands: tuple[str, ...] = ()
    is_service: bool = True
    least_python: tuple[int, int] = (3, 10)

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Explain a missing package, and let no SIGHUP kill a service.

        Around a program's imports, which take seconds, and its commands: without its packages, `--version`
        and `--help` work, and everything else ends with status 2 and a sentence.
        """
        try:
            with _ignored_hangup() if self.is_service else nullcontext():
                yield
        except ImportError as error:
            if (error.name or "").partition(".")[0] in _OURS:
                raise
            sys.exit(self._without_packages(error, sys.argv[1:]))

    def _without_packages(self, error: ImportError, args: Sequence[str]) -> int:
        if sys.version_info < self.least_python:
            # Some of its packages are not installed on an older one.
            needed, found = (".".join(map(str, each[:2])) for each in (self.least_python, sys.version_info))
            remedy = f"it needs Python {needed} or later, and this is {found}"
        elif isinstance(error, ModuleNotFoundError):
            remedy = f"{error.name} is not installed: {how_to_install(self.extra)}"
        else:
            remedy = f"{error.name or 'a package'} cannot be loaded ({mask(str(error))})"
        if "--version" in args:
            sys.stdout.write(f"{self.version_line}\n")
            return 0
        if "--help" in args:
            commands = f" [{'|'.join(self.commands)}]" if self.commands else ""
            sys.stdout.write(
                f"Usage: {self.name} [--config FILE] [--version] [--help]{commands} ...\n\n{self.about}\n\n"
                f"The help of each command needs the program's packages; {remedy}\n"
            )
            return 0
        sys.stderr.write(f"{self.name} cannot run: {remedy}\n")
        return CANNOT_RUN

    @property
    def version_line(self) -> str:
        return f"{self.name} {version()}"

    def run(self, app: Any) -> None:
        """Run the commands of `app`, a `typer.Typer`, and end this process.

        Standard error is masked. A reader of the output that went away ends the program quietly.
        """
        sys.stderr = cast("TextIO", MaskedStream(sys.stderr))
        if "--version" in sys.argv[1:2]:
            sys.stdout.write(f"{self.version_line}\n")
            sys.exit(0)
        self._prepare_signals()
        # Typer's own form of a traceback breaks lines within a secret.
        app.pretty_exceptions_enable = False
        args = [_expand_home(arg) for arg in sys.argv[1:]]
        try:
            with self.imports():
                status = _call(lambda: app(args, prog_name=self.name, standalone_mode=False))
            sys.stdout.flush()
        except BrokenPipeError:
            # Python writes the rest at its end, to a reader that is gone.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 128 + signal.SIGPIPE
        sys.exit(status)

    def _prepare_signals(self) -> None:
        """Let no SIGHUP kill a service that starts; let a command end as with Ctrl-C."""
        if self.is_service:
            if not sys.stderr.isatty():
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            return
        for number in (signal.SIGHUP, signal.SIGTERM):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


@contextmanager
def _ignored_hangup() -> Iterator[None]:
    """Ignore SIGHUP while the body runs, except on a terminal.

    systemd takes an end by SIGHUP for a clean one and does not start the service again.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or sys.stderr.isatty() or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _call(command: Callable[[], object]) -> int:
    """Return the exit status of a command.

    An error of usage is printed in one piece, so that it can be masked.
    """
    try:
        status = command()
    except SystemExit as error:
        if (
            error.code == 1
            and isinstance(error.__context__, OSError)
            and error.__context__.errno == errno.EPIPE
        ):
            raise BrokenPipeError from error
        raise
    except Exception as error:
        # Typer has click's exceptions under a private name, older versions click's own.
        if not hasattr(error, "exit_code"):
            if type(error).__name__ != "Abort":
                raise
            sys.stderr.write("aborted\n")
            return 1
        if hasattr(error, "show"):
            error.show()
        return int(error.exit_code)
    return status if isinstance(status, int) else 0


def _expand_home(arg: str) -> str:
    """Return an argument with `~` expanded.

    A shell leaves it in `--option=~/file`, and a service has no shell.
    """
    option, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return f"{option}{equals}{os.path.expanduser(value)}" if value.startswith("~") else arg  # noqa: PTH111
