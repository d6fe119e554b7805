"""Run a program's event loop to an end that is bounded in time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_END_SECONDS = 0.5


def run_bounded(main: Coroutine[Any, Any, T]) -> T:
    """Return the result of `main`; end the tasks that it leaves behind.

    Waits for them half a second; `asyncio.run` waits without a limit. A call of MongoDB's driver may wait for
    a server, or ignore its cancellation.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            loop.run_until_complete(_end_tasks())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _end_tasks() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if not left:
        return
    ended, running = await asyncio.wait(left, timeout=_END_SECONDS)
    for task in ended:
        if not task.cancelled():
            task.exception()
    for task in running:
        # They end with the process, as intended.
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
