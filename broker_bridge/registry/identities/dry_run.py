"""Run changes of identities in transactions that are rolled back."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .store import IdentityStore

T = TypeVar("T")


class DryRunStore(IdentityStore):
    """An identity store that rolls every transaction back.

    Results are those of the real transaction.
    """

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return the result of `work(session)` in a transaction that is then aborted."""

        async def roll_back(session: Any) -> None:
            raise _RolledBack(await work(session))

        try:
            await super().transact(roll_back)
        except _RolledBack as end:
            result: T = end.result
            return result
        raise AssertionError("the transaction was not rolled back")


class _RolledBack(Exception):  # noqa: N818  # no error: it ends a transaction with its result
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result
