"""Shield the driver's calls from the cancellation of their callers.

Before Python 3.12 a cancellation that reaches the driver while its own `asyncio.wait_for` times out leaves
the lock of its topology taken for good. See docs/decisions/0028-driver-calls-are-never-cancelled.md.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from pymongo import timeout

T = TypeVar("T")

_DRIVERS = ("pymongo.asynchronous.", "motor.")
_DOCUMENTS_PER_CALL = 256


class DriverCalls:
    """The calls of one client that run now; each runs to its end in a task of its own."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    async def finish(self, call: Awaitable[T]) -> T:
        """Return the result of `call`, which runs on if its caller is cancelled."""
        return await asyncio.shield(self.start(call))

    def finish_later(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make `call` after the calls that run now, without a caller; drop its error."""
        earlier = set(self._running)

        async def follow() -> None:
            if earlier:
                await asyncio.wait(earlier)
            await call()

        self.start(follow())

    def start(self, call: Awaitable[T]) -> "asyncio.Future[T]":
        """Begin `call` and return its future, which must not be cancelled."""
        running = asyncio.ensure_future(call)
        self._running.add(running)
        running.add_done_callback(self._end)
        return running

    async def drain(self, seconds: float) -> None:
        """Wait up to `seconds` for the calls that run now."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)

    def _end(self, ended: "asyncio.Future[Any]") -> None:
        self._running.discard(ended)
        if not ended.cancelled():
            # Read here once: asyncio logs the error of a task that no caller has waited for.
            ended.exception()


class Shielded:
    """An object of the driver: client, database, collection, cursor, change stream.

    Its calls are shielded; with `seconds` each may take so long, whatever the client's own deadlines. What
    they return is shielded too, as far as it belongs to the driver.
    """

    def __init__(self, target: Any, calls: DriverCalls, seconds: float | None = None) -> None:
        self._target = target
        self._calls = calls
        self._seconds = seconds

    def __getitem__(self, name: str) -> Any:
        return self._wrap(self._target[name])

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if _is_of_driver(value) or not callable(value):
            return self._wrap(value)

        @wraps(value)
        def call(*args: Any, **kwargs: Any) -> Any:
            with timeout(self._seconds):
                result = value(*args, **kwargs)
            return self._finish(result) if inspect.isawaitable(result) else self._wrap(result)

        return call

    def __aiter__(self) -> AsyncIterator[Any]:
        return self if self._is_stream() else self._documents()

    async def __anext__(self) -> Any:
        if not self._is_stream():
            return await self._finish(self._target.next())
        # `next` of a stream waits without a limit: a shielded call must end by itself.
        while self._target.alive:
            change = await self._finish(self._target.try_next())
            if change is not None:
                return change
        raise StopAsyncIteration

    async def _documents(self) -> AsyncIterator[Any]:
        # One call for many documents: a task for each would take longer than the driver.
        while documents := await self._finish(self._target.to_list(_DOCUMENTS_PER_CALL)):
            for document in documents:
                yield document

    def _is_stream(self) -> bool:
        return hasattr(self._target, "resume_token")

    async def _finish(self, call: Awaitable[Any]) -> Any:
        with timeout(self._seconds):
            running = self._calls.start(call)
        return self._wrap(await asyncio.shield(running))

    def _wrap(self, value: Any) -> Any:
        return Shielded(value, self._calls, self._seconds) if _is_of_driver(value) else value


def _is_of_driver(value: Any) -> bool:
    return type(value).__module__.startswith(_DRIVERS)
