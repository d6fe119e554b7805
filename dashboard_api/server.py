"""Serve with uvicorn; at the end close live streams, which never end themselves."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from broker_bridge.common.settings import SettingsError
from broker_bridge.common.watchdog import Watchdog

from .services.services import Services
from .settings import ApiProgram

_GRACE_SECONDS = 5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise SettingsError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            [
                (
                    f"api.port: cannot listen on {host}:{port} ({reason}); set api.host and api.port, "
                    "or WFM_API__HOST and WFM_API__PORT in the environment"
                )
            ]
        ) from error
    # asyncio disables Nagle's algorithm only on sockets of its own. Accepted sockets inherit this option;
    # without it the body of a response waits 40 ms for the acknowledgement of the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def set_server_log(level: str) -> None:
    """Let uvicorn log at `level`, and requests only at debug."""
    # At info uvicorn logs its start and stop in its own form; `startup` and `shutdown` log ours.
    own = "WARNING" if level == "info" else level.upper()
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(own)
    # Without a handler uvicorn spares the work for each request.
    logging.getLogger("uvicorn.access").propagate = level == "debug"


class Server(uvicorn.Server):
    """Serves one app until SIGTERM or Ctrl-C, then ends with status 0."""

    def __init__(self, app: FastAPI, program: ApiProgram, watchdog: Watchdog | None = None) -> None:
        self._services: Services = app.state.services
        self._watchdog = watchdog or Watchdog({})
        super().__init__(
            uvicorn.Config(
                app,
                host=program.api.host,
                port=program.api.port,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        set_server_log(program.log.level)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._watchdog.ready(lambda: self._services.probe.works)
        _log.info("api listening host=%s port=%d", self.config.host, self.config.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._services.hub.stop()
        await super().shutdown(sockets)
        _log.info("api stopped")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again after its shutdown, which would skip closing the registry. These are
        # no handlers of the loop: the watchdog must know of the signal when the loop does not turn.
        before = {number: signal.signal(number, self._handle_stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle_stop(self, number: int, frame: FrameType | None) -> None:
        self._watchdog.stopping()
        self.handle_exit(number, frame)
