"""Bring texts that people type into one form, so that equal texts are equal bytes."""

import re
import unicodedata

_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Characters without width, which copying from a document leaves at the ends of a text."""
_ENDS = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+\Z")
_SEPARATORS = re.compile(rf"[\s._{_INVISIBLE}-]+")
# Letters that look alike and that no normalisation form of Unicode unites.
_DOTLESS = str.maketrans({"\N{LATIN SMALL LETTER DOTLESS I}": "i", "\N{LATIN SMALL LETTER DOTLESS J}": "j"})


def normalise_text(text: str) -> str:
    """Return `text` in NFC (UAX 15) without blanks or invisible letters around."""
    return unicodedata.normalize("NFC", _ENDS.sub("", text))


def comparison_key(text: str) -> str:
    """Return a form that two texts share if a person may mistake one for the other.

    Case, accents, width, dots of i, and separators make no difference.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return _SEPARATORS.sub("", plain.translate(_DOTLESS))
