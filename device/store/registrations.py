"""Pending registrations, kept over restarts until the registry decides them."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pydantic import ValidationError

from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.contract.wire import format_time
from device.timing.device_clock import FIRST_YEAR

from .connection import StoreConnection

_log = logging.getLogger(__name__)

MAX_PENDING = 200
"""The number of pending registrations; a further one drops the oldest."""
MAX_AGE = timedelta(days=1)
_FIRST_TIME = f"{FIRST_YEAR}-01-01"


class RegistrationStore:
    """The table `registrations`. Every method raises StoreError when the file fails."""

    def __init__(self, connection: StoreConnection, *, utc_now: Callable[[], datetime]) -> None:
        self._connection = connection
        self._utc_now = utc_now

    def put(self, registration: RegisterIdentity) -> int:
        """Store `registration`; return the number of older ones that it dropped."""
        with self._connection.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO registrations (request_id, body, created_at) VALUES (?, ?, ?)",
                (registration.request_id, registration.to_json(), format_time(self._utc_now())),
            )
        return self.expire()

    def expire(self) -> int:
        """Delete registrations that are too old or too many; return their number.

        No copy of their vectors stays in the file.
        """
        now = self._utc_now()
        oldest = format_time(now - MAX_AGE)
        with self._connection.transaction() as connection:
            # Of a clock that was wrong: their age is unknown and counts from now.
            connection.execute(
                "UPDATE registrations SET created_at = ? WHERE created_at > ? OR created_at < ?",
                (format_time(now), format_time(now), _FIRST_TIME),
            )
        return self._delete(
            "created_at < ? OR request_id NOT IN "
            "(SELECT request_id FROM registrations ORDER BY created_at DESC LIMIT ?)",
            (oldest, MAX_PENDING),
        )

    def forget(self, request_ids: Iterable[str]) -> None:
        """Delete registrations. No copy of their vectors stays in the file."""
        with self._connection.transaction() as connection:
            connection.executemany(
                "DELETE FROM registrations WHERE request_id = ?",
                [(request_id,) for request_id in request_ids],
            )
        self._connection.truncate_log()

    def pending(self) -> list[RegisterIdentity]:
        """Return all registrations, oldest first; delete those that cannot be read."""
        with self._connection.reading() as connection:
            rows = connection.execute(
                "SELECT request_id, body FROM registrations ORDER BY created_at"
            ).fetchall()
        registrations = []
        for request_id, body in rows:
            try:
                registrations.append(RegisterIdentity.model_validate_json(body))
            except ValidationError:
                # A flipped bit passes SQLite's own check. The camera sees the visitor again; an employee's
                # file is still in the watched folder.
                _log.warning(
                    "registration store row unreadable; the registration is dropped request_id=%s", request_id
                )
                self.settle(request_id)
        return registrations

    def settle(self, request_id: str) -> bool:
        """Delete a decided registration; return False if it was not stored.

        No copy of its vector stays in the file.
        """
        return bool(self._delete("request_id = ?", (request_id,)))

    def _delete(self, which: str, values: tuple[str | int, ...]) -> int:
        with self._connection.transaction() as connection:
            deleted = connection.execute(f"DELETE FROM registrations WHERE {which}", values).rowcount  # noqa: S608
        if deleted:
            self._connection.truncate_log()
        return deleted
