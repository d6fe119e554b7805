"""End a program that cannot work or cannot stop, and keep systemd informed.

The watchdog is a thread: it notices an event loop that does not turn. It counts its own ticks and reads no
clock, so that a program that was stopped as a whole (SIGSTOP, a suspended machine) does not count as stuck.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_log = logging.getLogger(__name__)

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h: a supervisor starts the program again."""

_TICK_SECONDS = 1.0
_STUCK_TICKS = 30
_UNABLE_TICKS = 5
_STOP_TICKS = 9
_LOG_SECONDS = 1.0


def end_within(seconds: float = _STOP_TICKS * _TICK_SECONDS, end: Callable[[int], object] = os._exit) -> None:
    """End the process with status 70 unless it has ended by itself within `seconds`.

    For programs of threads, which were told to stop; a thread may wait for a camera for ever.
    """
    timer = threading.Timer(seconds, _end_program, ("program does not stop", end))
    timer.daemon = True
    timer.start()


def _end_program(reason: str, end: Callable[[int], object]) -> None:
    # In a thread: another one may hold the lock of the log, whose reader has stopped.
    line = "watchdog ends the program reason=%r status=%d"
    logged = threading.Thread(target=_log.critical, args=(line, reason, EXIT_STATUS), daemon=True)
    logged.start()
    logged.join(_LOG_SECONDS)
    end(EXIT_STATUS)


@dataclass
class Vitals:
    """Counts the ticks since the last sign of life."""

    since_turn: int = 0
    unable: int = 0
    stopping: int = 0

    def tick(self, *, turned: bool, able: bool, stopping: bool) -> str | None:
        """Count one tick and return the reason to end the program, or None."""
        self.since_turn = 0 if turned else self.since_turn + 1
        self.unable = 0 if able else self.unable + 1
        self.stopping += stopping
        if self.stopping >= _STOP_TICKS:
            return "program does not stop"
        if self.since_turn >= _STUCK_TICKS:
            return "event loop does not turn"
        if self.unable >= _UNABLE_TICKS:
            return "program cannot work any more"
        return None

    @property
    def is_well(self) -> bool:
        """Whether the supervisor may be told that the program works."""
        return not self.unable and self.since_turn < _STUCK_TICKS // 3


class Watchdog:
    """Watches one event loop from a thread.

    `end` ends the process with a status; `environment` may name systemd's NOTIFY_SOCKET.
    """

    def __init__(self, environment: Mapping[str, str], end: Callable[[int], object] = os._exit) -> None:
        self._socket = environment.get("NOTIFY_SOCKET")
        self._end = end
        self._is_able: Callable[[], bool] = lambda: True
        self._turned = True
        self._stopping = False
        self._vitals = Vitals()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch `loop`, until the process ends."""
        threading.Thread(target=self._watch, args=(loop,), name="watchdog", daemon=True).start()

    def ready(self, is_able: Callable[[], bool]) -> None:
        """Note that the program works from now on, as long as `is_able` returns True."""
        self._is_able = is_able
        self._notify("READY=1")

    def stopping(self) -> None:
        """Note that the program was told to stop: from now on its time is limited."""
        if not self._stopping:
            self._stopping = True
            self._notify("STOPPING=1")

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = threading.Event()
        while not pause.wait(_TICK_SECONDS):
            turned, self._turned = self._turned, False
            reason = self._vitals.tick(turned=turned, able=self._is_able(), stopping=self._stopping)
            if reason:
                self._give_up(reason)
                return
            if self._vitals.is_well:
                self._notify("WATCHDOG=1")
            if turned and not loop.is_closed():
                loop.call_soon_threadsafe(self._note_turn)

    def _note_turn(self) -> None:
        self._turned = True

    def _give_up(self, reason: str) -> None:
        _end_program(reason, self._end)

    def _notify(self, state: str) -> None:
        """Send `state` to systemd, if it has started this program with Type=notify."""
        if not self._socket:
            return
        address = "\0" + self._socket[1:] if self._socket.startswith("@") else self._socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_TICK_SECONDS)
                channel.sendto(state.encode(), address)
        except OSError as error:
            _log.warning("watchdog cannot reach systemd error=%s", type(error).__name__)
