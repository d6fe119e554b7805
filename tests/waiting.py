"""Wait for a condition on a server or a thread; a deadline fails the wait."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

SECONDS = 60.0
"""Longer than anything takes on a machine whose cores are busy: a wait ends as soon as it may."""
_PAUSE_SECONDS = 0.005


def wait_until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    """Return when `condition` holds; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        pause.wait(_PAUSE_SECONDS)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Return when the awaited `condition` holds; fail after `seconds`."""

    async def poll() -> None:
        while not await condition():
            await asyncio.sleep(_PAUSE_SECONDS)

    await asyncio.wait_for(poll(), seconds)
