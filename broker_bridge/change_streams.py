"""Wake a component when the registry changes; the component polls as well."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from .registry import RegistryError

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


async def wake_on(
    watch: Callable[[], AbstractAsyncContextManager[AsyncIterator[object]]],
    wake: Callable[[], None],
    counters: Counter[str],
) -> None:
    """Call `wake` at every change of the stream that `watch` opens, until cancelled.

    A broken stream is counted in `stream_breaks` and opened again.
    """
    while True:
        try:
            async with watch() as stream:
                wake()
                async for _ in stream:
                    wake()
        except RegistryError as error:
            counters["stream_breaks"] += 1
            _log.warning("the change stream broke, polling meanwhile: %s", type(error).__name__)
        await asyncio.sleep(_RETRY_SECONDS)
