"""The parts that follow a connection: each hears of everything, whatever befalls the others."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from broker_bridge.contract.channels import Decoded
from device.store.connection import StoreError

from .link import SessionListener

_log = logging.getLogger(__name__)

T = TypeVar("T")

# What could not do what was due tries again so much later: not in a circle, and the line goes on listening.
_REST_SECONDS = 2.0


class Listeners:
    """Tells every part in turn. What one of them cannot do (its disk is full) is said, counted under `errors`
    in `counts`, and keeps no other from its turn: a full disk must not hide a command or a quarantine."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._listeners: list[SessionListener] = []
        self._resting: dict[SessionListener, float] = {}

    def attach(self, listener: SessionListener) -> None:
        self._listeners.append(listener)

    def connected(self, now: float) -> None:
        for listener in self._listeners:
            self._tell(lambda one: one.connected(now), listener)

    def disconnected(self) -> None:
        for listener in self._listeners:
            self._tell(lambda one: one.disconnected(), listener)

    def receive_message(self, decoded: Decoded[Any]) -> None:
        for listener in self._listeners:
            self._tell(lambda one: one.receive_message(decoded), listener)

    def tick(self, now: float) -> float | None:
        """When somebody wants to be called again, the soonest; None for no hurry."""
        wishes = [self._tick(listener, now) for listener in self._listeners]
        return min((at for at in wishes if at is not None), default=None)

    def _tick(self, listener: SessionListener, now: float) -> float | None:
        rests_until = self._resting.pop(listener, now)
        if rests_until <= now:
            failed = self._counts["errors"]
            wish = self._tell(lambda one: one.tick(now), listener)
            if self._counts["errors"] == failed:
                return wish
            rests_until = now + _REST_SECONDS
        self._resting[listener] = rests_until
        return rests_until

    def _tell(self, what: Callable[[SessionListener], T], listener: SessionListener) -> T | None:
        try:
            return what(listener)
        except StoreError as error:
            self._counts["errors"] += 1
            _log.error("%s could not do its part: %s", type(listener).__name__, error)
        except Exception:  # noqa: BLE001
            # The outermost loop over the parts.
            self._counts["errors"] += 1
            _log.exception("%s met an unexpected error; the line goes on", type(listener).__name__)
        return None
