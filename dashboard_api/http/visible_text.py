r"""Text without invisible characters, as a pattern for every kind of reader.

`\p{C}` would be shorter: Python's `re` and clients made from the document do not know it.
"""

import re

from pydantic import AfterValidator

BLANKS = " \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
"""What separates words, for a character class."""
INVISIBLE = (
    # Controls, and the formats that join, hide or turn round what stands beside them.
    r"\x00-\x1f\x7f-\x9f"
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    # What is no character.
    "\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff"
)
"""Control and format characters and line separators, for a character class."""
VISIBLE_TEXT = f"^[^{INVISIBLE}]+$"
_TAGS = re.compile("[\U000e0000-\U000e007f]")


def _refuse_tags(text: str) -> str:
    if _TAGS.search(text):
        raise ValueError("text has no tag characters, which are invisible")
    return text


NoTags = AfterValidator(_refuse_tags)
"""Readers differ in how a pattern names characters past U+FFFF."""
