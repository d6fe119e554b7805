"""Repeat requests while a server is unavailable, and log the outage."""

import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker_bridge.common.retry import Backoff

from .errors import ServiceFaultError, ServiceUnavailableError

_log = logging.getLogger(__name__)

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class RequestRetrier:
    """Repeat requests to one server, with a backoff.

    Each request is repeated for at most `patience` seconds.
    """

    def __init__(
        self,
        patience: float,
        *,
        backoff: Backoff,
        source: random.Random,
        clock: Callable[[], float],
        sleep: Sleep,
    ) -> None:
        self._patience = patience
        self._backoff = backoff
        self._source = source
        self._clock = clock
        self._sleep = sleep
        self._outage: str | None = None

    async def request(self, send: Callable[[], Awaitable[T]], *, faults: int | None = None) -> T:
        """Return the answer of `send`.

        Raises the ServiceUnavailableError of the last try after `patience` seconds, and ServiceFaultError at
        the `faults`-th failure of the server over this request.
        """
        started = self._clock()
        for attempt in itertools.count(1):
            try:
                answer = await send()
            except ServiceUnavailableError as error:
                gives_up = faults is not None and attempt >= faults and isinstance(error, ServiceFaultError)
                if gives_up or self._clock() - started >= self._patience:
                    raise
                self._log_outage(str(error))
            else:
                self._log_outage(None)
                return answer
            await self._sleep(self._backoff.delay(attempt, self._source))
        raise AssertionError("the count has no end")

    def _log_outage(self, reason: str | None) -> None:
        if reason and not self._outage:
            _log.warning("service unavailable; the worker retries until it answers error=%r", reason)
        elif self._outage and not reason:
            _log.info("service available again error=%r", self._outage)
        self._outage = reason
