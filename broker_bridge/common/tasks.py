"""Cancel tasks and wait for their end."""

import asyncio
from collections.abc import Iterable
from typing import Any

_PATIENCE_SECONDS = 2.0


async def cancel_and_wait(tasks: Iterable["asyncio.Task[Any]"], patience: float = _PATIENCE_SECONDS) -> None:
    """Cancel `tasks` and wait until all have ended, with or without an error.

    Before Python 3.12 `asyncio.wait_for`, which the drivers use too, loses a cancellation that arrives in the
    same turn of the loop as its result: a task that runs on after `patience` seconds is cancelled again.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        ended, running = await asyncio.wait(running, timeout=patience)
        for task in ended:
            if not task.cancelled():
                task.exception()
