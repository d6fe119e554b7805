"""Trying again while a server is away, with one line in the log when that begins and one when it is over."""

import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker_bridge.common.retry import Backoff

from .errors import AwayError, FaultyError

_log = logging.getLogger(__name__)

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class Endurance:
    """Repeats requests to one server for at most `patience` seconds each, with exponential pauses."""

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
        self._away: str | None = None

    async def until_answered(self, ask: Callable[[], Awaitable[T]], *, faults: int | None = None) -> T:
        """What `ask` answers in the end.

        Raises the AwayError of the last try when patience has run out, and FaultyError at the `faults`-th
        try in which the server broke down over this request.
        """
        begun = self._clock()
        for attempt in itertools.count(1):
            try:
                answer = await ask()
            except AwayError as error:
                is_hopeless = faults is not None and attempt >= faults and isinstance(error, FaultyError)
                if is_hopeless or self._clock() - begun >= self._patience:
                    raise
                self._note(str(error))
            else:
                self._note(None)
                return answer
            await self._sleep(self._backoff.delay(attempt, self._source))
        raise AssertionError("the count has no end")

    def _note(self, away: str | None) -> None:
        if away and not self._away:
            _log.warning("%s; trying again until it answers", away)
        elif self._away and not away:
            _log.info("it answers again, after: %s", self._away)
        self._away = away
