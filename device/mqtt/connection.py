"""One connection to the broker, as the broker session sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .link import Publication


@dataclass(frozen=True)
class ConnectionEvent:
    """An event that a connection reports from its own thread."""

    connection: "Connection"
    kind: Literal["connected", "refused", "lost", "denied", "message"]
    reason: str = ""
    topic: str = ""
    payload: bytes = b""
    retained: bool = False
    code: int | None = None
    """The reason code of the broker, if it sent one."""
    address: str | None = None


class PendingPublish(Publication, Protocol):
    def wait(self, seconds: float) -> None: ...


class Connection(Protocol):
    """One connection to the broker, from CONNECT to its end."""

    def open(self) -> None:
        """Connect to the broker. Raises OSError when it cannot be reached."""
        ...

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None: ...

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> PendingPublish: ...

    def close(self) -> None: ...


OpenConnection = Callable[[str, bytes, Callable[[ConnectionEvent], None]], Connection]
"""Makes a connection that is not open yet, from session, last will and report callback."""
