"""Find the id that an unreadable message claims, to answer its sender."""

import json
import re
from collections.abc import Iterator
from itertools import islice

# A string, the start of one that does not end, a bracket or sign, or anything else between them.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|"|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)
# Some milliseconds. Our programs write ids first and long values as one string.
_MAX_TOKENS = 10_000
_MAX_LENGTH = 128


def claimed_id(payload: bytes, name: str) -> str | None:
    """Return the value of `name` in a payload that is not valid, or None.

    The payload may be cut, have bytes before or behind the object, NaN, invalid UTF-8 elsewhere, commas too
    many, or nest deeply. Only a string in the outermost object counts, the last one as in valid JSON.
    """
    claimed: str | None = None
    key: str | None = None
    is_value = False
    for token in _outer_tokens(payload):
        if token in (b",", b":"):
            is_value = token == b":"
        elif not is_value:
            key = _text_of(token)
        else:
            claimed = _text_of(token) if key == name else claimed
            is_value = False
    return claimed


def _outer_tokens(payload: bytes) -> Iterator[bytes]:
    """Yield the tokens of the first object without those inside its values."""
    depth = 0
    for found in islice(_TOKEN.finditer(payload), _MAX_TOKENS):
        token = found.group()
        if token == b'"' or (depth == 0 and token[:1] in b'"[]}:,'):
            return
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return
        elif depth == 1:
            yield token


def _text_of(token: bytes) -> str | None:
    """Return the text of a string that can stand in an answer."""
    try:
        text = json.loads(token) if token.startswith(b'"') else None
    except ValueError:
        return None
    return text if text and len(text) <= _MAX_LENGTH and text.isprintable() else None
