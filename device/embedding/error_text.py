"""Shorten error texts to what the backend accepts."""

from typing import Final

MAX_ERROR_CHARS: Final = 500
_MAX_WORD_CHARS = 120


def to_error_text(text: str) -> str:
    """Return `text` as one line without picture data, as the backend accepts it."""
    words = (word[:_MAX_WORD_CHARS] for word in text.split() if word.isprintable())
    return " ".join(words).replace("data:", "data")[:MAX_ERROR_CHARS]
