"""Run work in a thread to its end, also under cancellation."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of `work`; a cancelled caller waits for its end too.

    With `asyncio.to_thread` a cancelled caller would release its lock while the thread still reads the data
    that the lock protects.
    """
    running = asyncio.ensure_future(asyncio.to_thread(partial(work, *args, **kwargs)))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
