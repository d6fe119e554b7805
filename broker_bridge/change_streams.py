"""Wake a component when the registry changes; the component polls as well."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from .common.retry import repeat
from .registry import RegistryError

_log = logging.getLogger(__name__)


async def wake_on(
    watch: Callable[[], AbstractAsyncContextManager[AsyncIterator[object]]],
    wake: Callable[[], None],
    counters: Counter[str],
) -> None:
    """Call `wake` at every change of the stream that `watch` opens, until cancelled.

    A broken stream is counted in `stream_breaks` and opened again.
    """

    async def follow_stream() -> None:
        async with watch() as stream:
            wake()
            async for _ in stream:
                wake()

    def report(error: Exception) -> None:
        counters["stream_breaks"] += 1
        _log.warning("change stream broke; polling until it is open again error=%s", type(error).__name__)

    await repeat(follow_stream, on=RegistryError, report=report)
