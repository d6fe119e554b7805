"""Read the wall clock."""

from datetime import datetime, timezone


def utc_now() -> datetime:
    """Return the current time in UTC.

    Components take this function as a parameter, so that tests pass their own.
    """
    return datetime.now(timezone.utc)
