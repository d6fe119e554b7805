"""Find image indicators: parts of a request that point to an image (seed 001).

Indicators are a field by its name, a data URI, a URL, the name of an image file, and long base64.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from .problems import PICTURE_REFUSED, Problem

IndicatorKind = Literal["name", "data-uri", "url", "image-file", "base64", "image"]

_REASONS: dict[IndicatorKind, str] = {
    "name": "a field of this name holds an image or the address of one",
    "data-uri": "this is a data URI",
    "url": "this is a URL",
    "image-file": "this is the name of an image file",
    "base64": "this is long base64",
    "image": "this is an image",
}

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NOUN = r"(?:image|img|photo|picture|pic|thumbnail|thumb|url|uri|path|file)s?"
# Such nouns are also written together with others: filename, photodata, imageurl, imgbase64.
_IMAGE_WORD = re.compile(rf"{_NOUN}(?:{_NOUN})*(?:name|data|bytes|base|blob|link|id)?")
_DATA_URI = re.compile(
    r"\bdata:(?:image/|[\w.+-]{0,64}(?:/[\w.+-]{0,64})?(?:;[\w=.+-]{1,64}){0,8},)", re.IGNORECASE
)
_URL = re.compile(r"\w://|\bfile:/", re.IGNORECASE)
_IMAGE_FILE = re.compile(
    r"\.(?:jpe?g|jfif|png|gif|webp|bmp|tiff?|hei[cf]|avif|svg|cr2|nef|dng)(?![A-Za-z0-9])", re.IGNORECASE
)
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_=-]{65,}")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
# The first entries of _MAGIC in base64.
_MAGIC_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
# The one field name for which base64 is the expected content.
_VECTOR_FIELD = "vector"
_QUOTABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Sources use hashes in hex as ids; SHA-512 is the longest.
_MAX_HASH_LENGTH = 128
_MAX_WORD_LENGTH = 128
# Longer texts are neither ids nor names; other checks reject them.
_MAX_SCANNED_LENGTH = 4096


@dataclass(frozen=True)
class ImageIndicator:
    """An image indicator at a path in a document, such as `results.0.photo_url`."""

    at: str
    kind: IndicatorKind

    def problem(self) -> Problem:
        """Return Problem 422 `picture-refused`, which never quotes the value."""
        detail = f"{self.at}: {_REASONS[self.kind]}; send ids, names and vectors, no images"
        return Problem(422, PICTURE_REFUSED, detail)


def classify_name(name: str) -> IndicatorKind | None:
    """Return the indicator kind of a field name, or None.

    Indicators are the seed's six names and their synonyms, alone or as a part of a compound: `photo`,
    `photo_url`, `imagePath`, `file-name`, `thumbnails`. `profile` and `pathology` are not indicators.
    """
    plain = unicodedata.normalize("NFKC", name[:256])
    # In all-capital names only separators show where a word ends.
    words = [word.lower() for word in _WORDS.findall(plain)]
    names_image = any(_IMAGE_WORD.fullmatch(word) for word in words) or _IMAGE_WORD.fullmatch(plain.lower())
    return "name" if names_image else classify_text(name)


def classify_text(text: str) -> IndicatorKind | None:
    """Return the indicator kind of a text, or None."""
    text = text[:_MAX_SCANNED_LENGTH]
    if _DATA_URI.search(text):
        return "data-uri"
    if _URL.search(text):
        return "url"
    if _IMAGE_FILE.search(text):
        return "image-file"
    if len(text) > 32 and text.startswith(_MAGIC_BASE64):
        return "base64"
    return "base64" if any(_is_base64(run) for run in _BASE64_RUN.findall(text)) else None


def _is_base64(run: str) -> bool:
    """Return whether 65 or more base64 characters are no hash and no long word."""
    if len(run) <= _MAX_HASH_LENGTH and _HEX.fullmatch(run):
        return False
    character_classes = (str.isupper, str.islower, str.isdigit)
    return len(run) > _MAX_WORD_LENGTH or all(any(map(test, run)) for test in character_classes)


def is_image(data: bytes) -> bool:
    """Return whether bytes begin like a JPEG, PNG, GIF, WebP, BMP or TIFF."""
    return data.startswith(_MAGIC)


def holds_image(vector: str) -> bool:
    """Return whether the base64 text of an invalid vector begins like an image."""
    return vector.startswith(_MAGIC_BASE64)


def find_image_indicator(document: Any) -> ImageIndicator | None:
    """Return the first image indicator in a JSON document, at any depth, or None."""
    return next(_indicators(document, ()), None)


def _indicators(value: Any, at: tuple[str, ...]) -> Iterator[ImageIndicator]:
    if isinstance(value, dict):
        for name, inner in value.items():
            kind = classify_name(name)
            path = (*at, name if _QUOTABLE_NAME.fullmatch(name) else "(a name that is not shown)")
            if kind:
                yield ImageIndicator(".".join(path), kind)
            yield from _indicators(inner, path)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            # Most lists hold numbers, which need no look.
            if isinstance(inner, (str, dict, list)):
                yield from _indicators(inner, (*at, str(index)))
    elif isinstance(value, str):
        is_vector = bool(at) and at[-1] == _VECTOR_FIELD
        kind = ("image" if holds_image(value) else None) if is_vector else classify_text(value)
        if kind:
            yield ImageIndicator(".".join(at) or "body", kind)


def _reject_image_indicator(text: str) -> str:
    kind = classify_text(text)
    if kind:
        raise PydanticCustomError(PICTURE_REFUSED, "{reason}", {"reason": _REASONS[kind]})
    return text


NoImage = AfterValidator(_reject_image_indicator)
"""Field annotation: a text with an image indicator is a validation error `picture-refused`."""
