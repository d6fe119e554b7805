"""Wait and try again: the one backoff and the one retry loop of all programs.

tenacity would do the same with more moving parts; see docs/decisions/0027-the-house.md.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

T = TypeVar("T")

_MOST_DOUBLINGS = 32


@dataclass(frozen=True)
class Backoff:
    """Exponential delays with jitter, between `base` and `cap` seconds.

    The jitter spreads the retries of a fleet.
    """

    base: float
    cap: float

    def delay(self, attempt: int, source: random.Random) -> float:
        """Return the seconds to wait after try number `attempt` (1 is the first)."""
        # Beyond this exponent the cap holds anyway, and a larger one would overflow a float.
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt, _MOST_DOUBLINGS))
        return source.uniform(self.base, ceiling)


EVERY_SECOND = Backoff(1.0, 1.0)
"""For a component that waits alone for MongoDB: one try a second costs nothing."""


async def retry(
    action: Callable[[], Awaitable[T]],
    *,
    on: type[Exception],
    report: Callable[[Exception], None],
    backoff: Backoff = EVERY_SECOND,
    source: random.Random | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Return the result of `action`, repeating it after each exception of type `on`.

    `report` gets each exception before the wait. Any other exception ends the loop.
    """
    source = source or random.Random()  # noqa: S311 (jitter, not a secret)
    attempt = 0
    while True:
        try:
            return await action()
        except on as error:
            report(error)
        attempt += 1
        await sleep(backoff.delay(attempt, source))


async def repeat(
    action: Callable[[], Awaitable[None]],
    *,
    on: type[Exception],
    report: Callable[[Exception], None],
    backoff: Backoff = EVERY_SECOND,
    source: random.Random | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Run `action` repeatedly until cancelled, for example to follow a change stream.

    Waits one backoff after each run; only consecutive exceptions of the type `on` lengthen it.
    """
    source = source or random.Random()  # noqa: S311 (jitter, not a secret)
    failures = 0
    while True:
        try:
            await action()
            failures = 0
        except on as error:
            report(error)
            failures += 1
        await sleep(backoff.delay(max(failures, 1), source))
