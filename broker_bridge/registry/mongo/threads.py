"""Work in a thread that is waited for to its end."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work`. Whoever is cancelled waits for it all the same.

    With `asyncio.to_thread` the caller goes on and gives back its lock, and somebody else changes what the
    thread is still reading.
    """
    running = asyncio.ensure_future(asyncio.to_thread(partial(work, *args, **kwargs)))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
