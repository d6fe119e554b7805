"""Follow a change stream until it ends: the one loop over the driver's stream."""

from typing import Any

from .errors import StreamEndedError


class ChangeStream:
    """An open change stream of either driver.

    The driver's own `try_next` answers None without any wait once the stream has ended, so that a loop around
    it never lets another task run. This one raises StreamEndedError instead.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._token: dict[str, Any] | None = stream.resume_token

    @property
    def resume_token(self) -> Any:
        """The token of the last change, or of a later point without another one."""
        # The driver's token is that of the change before while a batch has further changes.
        return self._token

    async def try_next(self) -> dict[str, Any] | None:
        """Return the next change, or None if the server had none for a second.

        Raises StreamEndedError after the last change of a stream whose collection or database was dropped,
        renamed or replaced, and RegistryError when the stream breaks.
        """
        change: dict[str, Any] | None = await self._stream.try_next()
        if change is not None:
            self._token = change["_id"]
            return change
        if not self._stream.alive:
            raise StreamEndedError("the watched collection or database was dropped, renamed or replaced")
        self._token = self._stream.resume_token
        return None

    def __aiter__(self) -> "ChangeStream":
        return self

    async def __anext__(self) -> dict[str, Any]:
        """Return the next change as soon as there is one. Raises as `try_next` does."""
        while True:
            change = await self.try_next()
            if change is not None:
                return change


def concerns_collections(*names: str) -> dict[str, Any]:
    """Return the query of a database's change stream for changes of `names`.

    A collection that is renamed to one of them replaces it.
    """
    return {"$or": [{"ns.coll": {"$in": list(names)}}, {"to.coll": {"$in": list(names)}}]}
