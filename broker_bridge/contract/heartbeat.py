"""Define the rhythm of heartbeats and the silence that follows from it."""

from datetime import timedelta
from typing import Final

HEARTBEAT_SECONDS: Final = 30.0
"""Default interval between the heartbeats of a device."""

_MISSED = 3


def silent_after(heartbeat_seconds: float) -> timedelta:
    """Return the silence that three missed heartbeats make."""
    return timedelta(seconds=_MISSED * heartbeat_seconds)
