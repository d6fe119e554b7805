"""Paging of lists by cursor: an opaque text that encodes the last item of a page."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Query

from broker_bridge.contract.wire import format_time

from .problems import Problem

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of a page")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before")]


def to_cursor(*parts: str) -> str:
    return base64.urlsafe_b64encode("\0".join(parts).encode()).decode().rstrip("=")


def from_cursor(cursor: str | None, parts: int) -> list[str] | None:
    """Return the parts of a cursor, or None without one; raise Problem 422."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split("\0")
    except (ValueError, binascii.Error) as error:
        raise cursor_invalid() from error
    if len(decoded) != parts:
        raise cursor_invalid()
    return decoded


def to_moment_cursor(at: datetime, key: str) -> str:
    return to_cursor(format_time(at), key)


def from_moment_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Return time and key of the last item of the page before, in a list by time."""
    parts = from_cursor(cursor, 2)
    if parts is None:
        return None
    try:
        # Python 3.10 does not read the closing Z.
        at = datetime.fromisoformat(parts[0].replace("Z", "+00:00"))
        if format_time(at) == parts[0]:
            return at, parts[1]
    except (ValueError, OverflowError) as error:
        raise cursor_invalid() from error
    raise cursor_invalid()


def cursor_invalid() -> Problem:
    return Problem(422, "cursor-invalid", "cursor: take it unchanged from next_cursor of the page before")


def cut_page(found: Sequence[T], limit: int, cursor_of: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """Return the items of a page and the cursor of the next one, or None at the end.

    `found` has one item more than `limit` unless it is the end.
    """
    items = found[:limit]
    return items, cursor_of(items[-1]) if len(found) > limit else None
