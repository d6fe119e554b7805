"""The broker connection as the components of a device see it."""

from collections.abc import Callable
from typing import Any, Protocol

from broker_bridge.contract.channels import Channel, Decoded


class Publication(Protocol):
    """A message on its way to the broker."""

    def is_out(self) -> bool:
        """Return whether the broker acknowledged it, or it was lost with its connection."""
        ...


class Link(Protocol):
    """The sending side of a broker connection.

    Call `publish` in the link's own thread only, `submit` from any thread.
    """

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> Publication | None:
        """Publish on this device's topic of `channel`; return None without a connection."""
        ...

    def submit(self, action: Callable[[], None]) -> None:
        """Run `action` in the link's thread, soon."""
        ...


class SessionListener:
    """A component that follows the broker connection; overrides what concerns it.

    Every method runs in the link's thread. `now` is monotonic seconds.
    """

    def connected(self, now: float) -> None:
        """Start on a new connection, which is subscribed and announced."""

    def disconnected(self) -> None:
        """Stop sending; the connection is gone."""

    def receive_message(self, decoded: Decoded[Any]) -> None:
        """Handle a message from the broker. Every listener gets every message."""

    def tick(self, now: float) -> float | None:  # noqa: ARG002
        """Do what is due; return the latest time of the next call, None for no limit."""
        return None
