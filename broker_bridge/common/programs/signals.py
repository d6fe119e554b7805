"""What SIGHUP does: a service reloads its settings, a program on a terminal stops."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from broker_bridge.common.logs import configure_logging
from broker_bridge.common.settings import LogSettings, Settings, SettingsError, load_settings

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)


class Reload(Generic[S]):
    """Reads settings again and applies what can change in a running program.

    That is the log, and what `apply` does. A mistake changes nothing.
    """

    def __init__(
        self,
        model: type[S],
        file: Path | None,
        environ: Mapping[str, str],
        apply: Callable[[S], None] = lambda _: None,
    ) -> None:
        self._model = model
        self._file = file
        self._environ = environ
        self._apply = apply

    def __call__(self) -> None:
        try:
            settings = load_settings(self._model, self._file, self._environ)
            self._apply(settings)
        except SettingsError as error:
            _log.error("settings not reloaded; the program goes on as it was error=%r", str(error))
            return
        log: LogSettings = getattr(settings, "log", LogSettings())
        configure_logging(log)
        _log.info("settings reloaded; changes of anything but log and certificates need a restart")


def on_hangup(reload: Callable[[], None] | None = None) -> None:
    """At SIGHUP call `reload` in a thread; on a terminal, or without one, stop.

    The program stops as at SIGTERM. `nohup` on a terminal stays in effect.
    """
    if not _on_terminal():
        _handle(reload or _terminate)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        _handle(_terminate)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _handle(action: Callable[[], None]) -> None:
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=action, daemon=True).start())


def _on_terminal() -> bool:
    try:
        return os.isatty(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
