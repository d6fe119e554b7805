"""Orders carried out and taken back: what would become of them, by the same lines that would do it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .store import IdentityStore

T = TypeVar("T")


class DryRunStore(IdentityStore):
    """A store whose transactions are all rolled back: what they answer is true, and nothing of it stays."""

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work(session)` in a transaction that is then aborted."""

        async def taken_back(session: Any) -> None:
            raise _TakenBack(await work(session))

        try:
            await super().transact(taken_back)
        except _TakenBack as end:
            done: T = end.done
            return done
        raise AssertionError("the transaction was not taken back")


class _TakenBack(Exception):  # noqa: N818  # no error: it ends a transaction with its answer
    def __init__(self, done: Any) -> None:
        super().__init__()
        self.done = done
