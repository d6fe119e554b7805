"""Registrations that wait for the registry's decision, kept over restarts."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pydantic import ValidationError

from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.contract.wire import format_time

from .connection import StoreConnection

_log = logging.getLogger(__name__)

MOST = 200
"""So many wait at most: the oldest makes way."""
KEPT = timedelta(days=1)


class RegistrationStore:
    """Table `registrations`. Every method raises StoreError when the file fails."""

    def __init__(self, connection: StoreConnection, *, utc_now: Callable[[], datetime]) -> None:
        self._connection = connection
        self._utc_now = utc_now

    def put(self, registration: RegisterIdentity) -> int:
        """Keep `registration`; returns how many older ones had to go."""
        with self._connection.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO registrations (request_id, body, created_at) VALUES (?, ?, ?)",
                (registration.request_id, registration.to_json(), format_time(self._utc_now())),
            )
        return self.expire()

    def expire(self) -> int:
        """Forget those that are too old or too many, leaving no copy of their vectors; returns how many."""
        oldest = format_time(self._utc_now() - KEPT)
        return self._delete(
            "created_at < ? OR request_id NOT IN "
            "(SELECT request_id FROM registrations ORDER BY created_at DESC LIMIT ?)",
            (oldest, MOST),
        )

    def forget(self, request_ids: Iterable[str]) -> None:
        """Forget these, leaving no copy of their vectors."""
        with self._connection.transaction() as connection:
            connection.executemany(
                "DELETE FROM registrations WHERE request_id = ?", [(one,) for one in request_ids]
            )
        self._connection.truncate_log()

    def waiting(self) -> list[RegisterIdentity]:
        """All of them, oldest first; a row that the disk has spoilt is forgotten."""
        with self._connection.reading() as connection:
            rows = connection.execute(
                "SELECT request_id, body FROM registrations ORDER BY created_at"
            ).fetchall()
        found = []
        for request_id, body in rows:
            try:
                found.append(RegisterIdentity.model_validate_json(body))
            except ValidationError:
                # A flipped bit passes SQLite's own check; the camera will meet the visitor again,
                # and the watched folder has its file still.
                _log.warning("registration %s is no longer readable and is forgotten", request_id)
                self.settle(request_id)
        return found

    def settle(self, request_id: str) -> bool:
        """Forget one that was decided, leaving no copy of its vector; False if it was not there."""
        return bool(self._delete("request_id = ?", (request_id,)))

    def _delete(self, which: str, values: tuple[str | int, ...]) -> int:
        with self._connection.transaction() as connection:
            deleted = connection.execute(f"DELETE FROM registrations WHERE {which}", values).rowcount  # noqa: S608
        if deleted:
            self._connection.truncate_log()
        return deleted
