"""Fill the pauses of a stream, so that its reader can tell a pause from a break."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

from broker_bridge.common.tasks import cancel_and_wait

T = TypeVar("T")


async def with_pauses(items: AsyncIterable[T], seconds: float) -> AsyncIterator[T | None]:
    """Yield `items`, and None whenever `seconds` pass without one."""
    iterator = aiter(items)
    while True:
        # Waited for without a timeout of its own: a cancelled read would lose its item.
        waiting = asyncio.ensure_future(_next(iterator))
        try:
            while not (await asyncio.wait({waiting}, timeout=seconds))[0]:
                yield None
            yield waiting.result()
        except StopAsyncIteration:
            return
        finally:
            await cancel_and_wait([waiting])


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)
