"""The retry loops, with a recorded sleep instead of the clock."""

import asyncio
import random

import pytest

from broker_bridge.common.retry import EVERY_SECOND, Backoff, repeat, retry


class Recorder:
    """Records waits; ends the loop after `most` of them."""

    def __init__(self, most: int = 1000) -> None:
        self.waits: list[float] = []
        self.reported: list[str] = []
        self._most = most

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) >= self._most:
            raise asyncio.CancelledError

    def report(self, error: Exception) -> None:
        self.reported.append(str(error))


@pytest.mark.parametrize("attempt", [1, 2, 5, 40, 10_000])
def test_a_delay_lies_between_base_and_cap(attempt: int) -> None:
    """The delay never leaves [base, cap], however many attempts came before."""
    delays = [Backoff(2.0, 300.0).delay(attempt, random.Random(n)) for n in range(200)]
    assert min(delays) >= 2.0
    assert max(delays) <= min(300.0, 2.0 * 2.0 ** min(attempt, 32))


async def test_retry_returns_the_first_success() -> None:
    """`retry` reports each failure, waits after it, and returns the first success."""
    recorder = Recorder()
    answers = iter([OSError("first"), OSError("second"), "done"])

    async def action() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return str(answer)

    result = await retry(action, on=OSError, report=recorder.report, sleep=recorder.sleep)
    assert result == "done"
    assert recorder.reported == ["first", "second"]
    assert recorder.waits == [1.0, 1.0]


async def test_retry_passes_other_exceptions_on() -> None:
    """An exception of another type ends `retry` at once."""
    recorder = Recorder()

    async def action() -> None:
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        await retry(action, on=OSError, report=recorder.report, sleep=recorder.sleep)
    assert recorder.waits == []


async def test_repeat_lengthens_its_wait_only_while_failures_follow_each_other() -> None:
    """A run without an exception resets the backoff of `repeat`."""
    recorder = Recorder(most=5)
    fails = iter([True, True, True, False, True])

    async def action() -> None:
        if next(fails):
            raise OSError("away")

    class Ceiling(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    with pytest.raises(asyncio.CancelledError):
        await repeat(
            action,
            on=OSError,
            report=recorder.report,
            backoff=Backoff(1.0, 60.0),
            source=Ceiling(),
            sleep=recorder.sleep,
        )
    assert recorder.waits == [2.0, 4.0, 8.0, 2.0, 2.0]
    assert EVERY_SECOND.delay(9, Ceiling()) == 1.0
