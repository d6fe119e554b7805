"""The end of a program's event loop."""

import asyncio
import time

import pytest

from broker_bridge.common.event_loop import run_bounded


async def _ignore_cancellation() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


def test_a_task_that_ignores_its_cancellation_does_not_delay_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left = []

    async def main() -> str:
        left.append(asyncio.create_task(_ignore_cancellation()))
        await asyncio.sleep(0)
        return "result"

    started = time.monotonic()
    assert run_bounded(main()) == "result"
    assert time.monotonic() - started < 5
    left.clear()
    assert not caplog.records


def test_the_error_of_the_program_is_raised_and_its_tasks_end() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert not task.done()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_bounded(main())
    assert ended == [True]
