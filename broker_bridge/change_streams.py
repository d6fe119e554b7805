"""Wakes who follows collections of the registry. A stream is only a wake-up: who is woken polls as well."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from .registry import Registry, RegistryError
from .registry.mongo.client import Document

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


async def wake_on(
    registry: Registry, concerns: Document, wake: Callable[[], None], counters: Counter[str]
) -> None:
    """Call `wake` at every change that matches `concerns`, until cancelled.

    When the stream breaks, which `stream_breaks` counts, another is opened.
    """
    while True:
        try:
            async with registry.mongo.watch([{"$match": concerns}]) as stream:
                wake()
                async for _ in stream:
                    wake()
        except RegistryError as error:
            counters["stream_breaks"] += 1
            _log.warning("the change stream broke, polling meanwhile: %s", type(error).__name__)
        await asyncio.sleep(_RETRY_SECONDS)
