"""Check that tasks end, also after a lost cancellation."""

import asyncio

import pytest

from broker_bridge.common.tasks import cancel_and_wait


async def test_a_task_that_lost_its_cancellation_is_cancelled_again() -> None:
    """`asyncio.wait_for` before Python 3.12 loses a cancellation."""
    lost = []

    async def run_on() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.append(True)
        await asyncio.Event().wait()

    task = asyncio.create_task(run_on())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait([task], patience=0.01), 5)
    assert lost
    assert task.cancelled()


async def test_the_error_of_a_task_is_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError

    failed = asyncio.create_task(fails())
    await asyncio.wait([failed])
    await cancel_and_wait([failed, asyncio.create_task(asyncio.sleep(60))])
    del failed
    assert not caplog.records


async def test_without_tasks_it_returns_at_once() -> None:
    await cancel_and_wait([])
