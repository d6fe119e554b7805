"""Paging of lists by cursor: an opaque text that encodes the last item of a page."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, TypeVar

from fastapi import Query

from .problems import Problem

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# 14 digits of milliseconds end in the year 5138.
_MILLISECONDS = re.compile(r"[0-9]{1,14}", re.ASCII)
_PART = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of a page")]
_ABOUT = "`next_cursor` of the page before"
_HEX = "([0-9a-f]{2})*"
_DIGITS_AS_HEX = "(3[0-9])"


def _cursor_type(pattern: str, about: str = _ABOUT) -> Any:
    """Return the type of a cursor parameter.

    The pattern stands in OpenAPI alone, which tells a generator of requests what every list accepts. A wrong
    cursor is a `cursor-invalid`, which names the remedy.
    """
    described = {"pattern": f"^{pattern}$"}
    return Annotated[str | None, Query(max_length=512, description=about, json_schema_extra=described)]


Cursor = _cursor_type(_HEX)
"""The cursor of a list by id."""
MomentCursor = _cursor_type(f"[0-9]{{1,14}}-{_HEX}")
"""The cursor of a list by time."""
PersonCursor = _cursor_type(f"[0-9]{{1,14}}-{_DIGITS_AS_HEX}{{1,15}}")
"""The cursor of a list by time, whose ids are numbers."""
ExternalCursor = _cursor_type(f"{_HEX}-{_DIGITS_AS_HEX}{{1,6}}")
"""The cursor of a list by id and a count."""
FeedCursorText = _cursor_type(f"{_HEX}-{_DIGITS_AS_HEX}{{1,18}}", "`cursor` of the page before")
"""The cursor of the feed: a history and a position."""


def to_cursor(*parts: str) -> str:
    """Return the parts in hex, so that each text of this form is a cursor."""
    return "-".join(part.encode().hex() for part in parts)


def from_cursor(cursor: str | None, parts: int) -> list[str] | None:
    """Return the parts of a cursor, or None without one; raise Problem 422."""
    if cursor is None:
        return None
    found = cursor.split("-")
    if len(found) != parts or not all(_PART.fullmatch(part) for part in found):
        raise cursor_invalid()
    return [bytes.fromhex(part).decode(errors="replace") for part in found]


def to_moment_cursor(at: datetime, key: str) -> str:
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    return f"{milliseconds}-{to_cursor(key)}"


def from_moment_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Return time and key of the last item of the page before, in a list by time."""
    if cursor is None:
        return None
    milliseconds, dash, key = cursor.partition("-")
    if not dash or not _MILLISECONDS.fullmatch(milliseconds):
        raise cursor_invalid()
    parts = from_cursor(key, 1)
    return _EPOCH + timedelta(milliseconds=int(milliseconds)), parts[0] if parts else ""


def cursor_invalid() -> Problem:
    return Problem(422, "cursor-invalid", "cursor: take it unchanged from next_cursor of the page before")


def cut_page(found: Sequence[T], limit: int, cursor_of: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """Return the items of a page and the cursor of the next one, or None at the end.

    `found` has one item more than `limit` unless it is the end.
    """
    items = found[:limit]
    return items, cursor_of(items[-1]) if len(found) > limit else None
