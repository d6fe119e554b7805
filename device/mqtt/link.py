"""What the parts of a device see of its broker connection."""

from collections.abc import Callable
from typing import Any, Protocol

from broker_bridge.contract.channels import Channel, Decoded


class Publication(Protocol):
    """A message on its way to the broker."""

    def is_out(self) -> bool:
        """Whether it has left for good: acknowledged by the broker, or lost with its connection."""
        ...


class Link(Protocol):
    """The sending side; call `publish` in the link's own thread only, `submit` from anywhere."""

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> Publication | None:
        """Send on this device's topic of `channel`; None while there is no connection."""
        ...

    def submit(self, action: Callable[[], None]) -> None:
        """Run `action` in the link's thread, soon."""
        ...


class SessionListener(Protocol):
    """A part that takes part in the connection's life. Every method runs in the link's own thread."""

    def connected(self, now: float) -> None:
        """A new connection is subscribed and announced."""
        ...

    def disconnected(self) -> None:
        """The connection is gone."""
        ...

    def receive(self, decoded: Decoded[Any], now: float) -> None:
        """A message came; other parts see it too. `now` is monotonic seconds."""
        ...

    def tick(self, now: float) -> float | None:
        """Do what is due; returns when to be called again at the latest, None for no hurry."""
        ...
