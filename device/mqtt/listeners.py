"""The listeners of a broker connection, called in turn.

The failure of one listener stops no other.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from broker_bridge.contract.channels import Decoded
from device.store.connection import StoreError

from .link import SessionListener

_log = logging.getLogger(__name__)

T = TypeVar("T")

# A listener with a failed tick is called again after this pause, so that it does not block the others.
_PAUSE_SECONDS = 2.0


class Listeners:
    """The listeners of a connection, each called in turn.

    The failure of a listener (its disk is full) is logged and counted under `errors` in `counts`. The
    others still get their turn: a full disk must not hide a command or a quarantine.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._listeners: list[SessionListener] = []
        self._paused_until: dict[SessionListener, float] = {}

    def attach(self, listener: SessionListener) -> None:
        self._listeners.append(listener)

    def connected(self, now: float) -> None:
        for listener in self._listeners:
            self._call(listener, lambda target: target.connected(now))

    def disconnected(self) -> None:
        for listener in self._listeners:
            self._call(listener, lambda target: target.disconnected())

    def receive_message(self, decoded: Decoded[Any]) -> None:
        for listener in self._listeners:
            self._call(listener, lambda target: target.receive_message(decoded))

    def tick(self, now: float) -> float | None:
        """Call every listener that is not paused; return the next call's time.

        This is the earliest time that a listener needs, None if none does.
        """
        due_times = [self._tick(listener, now) for listener in self._listeners]
        return min((at for at in due_times if at is not None), default=None)

    def _tick(self, listener: SessionListener, now: float) -> float | None:
        paused_until = self._paused_until.pop(listener, now)
        if paused_until <= now:
            errors_before = self._counts["errors"]
            due_at = self._call(listener, lambda target: target.tick(now))
            if self._counts["errors"] == errors_before:
                return due_at
            paused_until = now + _PAUSE_SECONDS
        self._paused_until[listener] = paused_until
        return paused_until

    def _call(self, listener: SessionListener, action: Callable[[SessionListener], T]) -> T | None:
        try:
            return action(listener)
        except StoreError as error:
            self._counts["errors"] += 1
            _log.error(
                "listener failed on its database name=%s error=%r", type(listener).__name__, str(error)
            )
        except Exception:  # noqa: BLE001
            # The outermost loop over the listeners.
            self._counts["errors"] += 1
            _log.exception("listener met an unexpected error; it goes on name=%s", type(listener).__name__)
        return None
