"""Ids of connections to the broker."""

import logging
import secrets
from contextlib import suppress

from .connection import StoreError
from .db_manager import DatabaseManager

_log = logging.getLogger(__name__)

_KEY = "session"
_RANDOM_BITS = 24
_HIGHEST = 2**62


def next_session(db: DatabaseManager, unix_seconds: int) -> str:
    """Return a session id for a new connection, different from every other one.

    The random part tells apart two cameras with copies of one disk, and two disks of one camera. The rest
    rises while disk and clock last, for the readers of logs. A disk that fails changes nothing.
    """
    previous = 0
    try:
        with suppress(ValueError):
            previous = int(db.get_config(_KEY) or "0", 16)
    except StoreError as error:
        _log.warning("session: the last one cannot be read error=%r", str(error))
    seconds = max(0, unix_seconds)
    if 0 <= previous < _HIGHEST:
        seconds = max((previous >> _RANDOM_BITS) + 1, seconds)
    session = f"{min(seconds, _HIGHEST >> _RANDOM_BITS) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS):x}"
    try:
        db.set_config(_KEY, session)
    except StoreError as error:
        _log.warning("session: it cannot be stored error=%r", str(error))
    return session
