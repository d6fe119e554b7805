"""Work in a thread ends before its caller continues."""

import asyncio
import threading

import pytest

from broker_bridge.registry.mongo.threads import run_in_thread


async def test_a_cancelled_caller_waits_for_the_thread() -> None:
    """Otherwise another task would change the data that it reads."""
    started, may_end, ended = threading.Event(), threading.Event(), []

    def work(result: int) -> int:
        started.set()
        may_end.wait(10)
        ended.append(result)
        return result

    asking = asyncio.create_task(run_in_thread(work, 7))
    await asyncio.to_thread(started.wait, 10)
    asking.cancel()
    await asyncio.sleep(0)
    assert not asking.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended == [7]


async def test_the_result_and_the_error_of_the_work_are_those_of_the_call() -> None:
    assert await run_in_thread(int, "12", base=8) == 10
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread(int, "x")
