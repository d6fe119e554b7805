"""A stream in a pause says that it is alive."""

import asyncio
from collections.abc import AsyncIterator

from dashboard_api.events.keepalive import with_pauses


async def test_pauses_are_filled_and_no_item_is_lost() -> None:
    """The end of the items is the end of the stream."""
    came = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await came.wait()
        yield 2
        yield 3

    seen: list[int | None] = []
    async for item in with_pauses(items(), 0.01):
        seen.append(item)
        if seen.count(None) == 3:
            came.set()
    assert [item for item in seen if item] == [1, 2, 3]
    assert seen[1:4] == [None, None, None]


async def test_closing_in_a_pause_ends_the_read() -> None:
    """The source is cancelled and closed, not left waiting."""
    ended = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            ended.set()

    stream = with_pauses(items(), 0.01)
    assert await anext(stream) is None
    await stream.aclose()
    assert ended.is_set()
