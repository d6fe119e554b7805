"""What smells of a picture: fields, texts and bytes that have no place in what a source hands in (seed 001).

A field by its name; a text that is a data URI, a URL, the name of an image file, or long base64.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from .problems import PICTURE_REFUSED, Problem

Smell = Literal["name", "data-uri", "url", "image-file", "base64", "image"]

_WHY: dict[Smell, str] = {
    "name": "a field of this name is for pictures or for where they lie",
    "data-uri": "this is a data URI",
    "url": "this is a URL",
    "image-file": "this is the name of an image file",
    "base64": "this is long base64",
    "image": "this is an image",
}

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NOUN = r"(?:image|img|photo|picture|pic|thumbnail|thumb|url|uri|path|file)s?"
# With what such nouns are run together: filename, photodata, imageurl, imgbase64.
_SMELLING_WORD = re.compile(rf"{_NOUN}(?:{_NOUN})*(?:name|data|bytes|base|blob|link|id)?")
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
# The first of these in base64.
_MAGIC_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
# Base64 of numbers, which is what it should be.
_VECTOR = "vector"
_SHOWN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# A hash in hex is an id that sources have; SHA-512 is the longest.
_LONGEST_HASH = 128
_LONGEST_WORD = 128
# A text that is longer is no id and no name, and refused whatever it holds.
_LOOKED_AT = 4096


@dataclass(frozen=True)
class ImageIndicator:
    """Where in a document something smells of a picture, such as `results.0.photo_url`, and of what."""

    at: str
    smell: Smell

    def problem(self) -> Problem:
        """422 `picture-refused`; it names the field, and never what it held."""
        detail = f"{self.at}: {_WHY[self.smell]}; a source hands in ids, names and vectors, and no pictures"
        return Problem(422, PICTURE_REFUSED, detail)


def smell_of_name(name: str) -> Smell | None:
    """Whether a field is called one of the seed's six names or a synonym, alone or as a word of its name:
    `photo`, `photo_url`, `imagePath`, `file-name`, `thumbnails`. `profile` and `pathology` are not."""
    plain = unicodedata.normalize("NFKC", name[:256])
    # In capitals there is no telling where a word ends but by what stands between.
    words = [word.lower() for word in _WORDS.findall(plain)]
    smells = any(_SMELLING_WORD.fullmatch(word) for word in words)
    return "name" if smells or _SMELLING_WORD.fullmatch(plain.lower()) else smell_of_text(name)


def smell_of_text(text: str) -> Smell | None:
    """What a text smells of."""
    text = text[:_LOOKED_AT]
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
    """Whether 65 or more characters of base64's alphabet in a row are no hash and no compound of words."""
    if len(run) <= _LONGEST_HASH and _HEX.fullmatch(run):
        return False
    kinds = (str.isupper, str.islower, str.isdigit)
    return len(run) > _LONGEST_WORD or all(any(map(kind, run)) for kind in kinds)


def is_image(data: bytes) -> bool:
    """Whether bytes begin like a JPEG, PNG, GIF, WebP, BMP or TIFF."""
    return data.startswith(_MAGIC)


def holds_image(vector: str) -> bool:
    """Whether the base64 of what should be a vector, and is none, begins like an image."""
    return vector.startswith(_MAGIC_BASE64)


def find_picture(document: Any) -> ImageIndicator | None:
    """The first field or text of a JSON document, at any depth, that smells of a picture."""
    return next(_pictures(document, ()), None)


def _pictures(value: Any, at: tuple[str, ...]) -> Iterator[ImageIndicator]:
    if isinstance(value, dict):
        for name, inner in value.items():
            smell = smell_of_name(name)
            here = (*at, name if _SHOWN_NAME.fullmatch(name) else "(a name that is not shown)")
            if smell:
                yield ImageIndicator(".".join(here), smell)
            yield from _pictures(inner, here)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            # Most lists are of numbers.
            if isinstance(inner, (str, dict, list)):
                yield from _pictures(inner, (*at, str(place)))
    elif isinstance(value, str):
        is_vector = bool(at) and at[-1] == _VECTOR
        smell = ("image" if holds_image(value) else None) if is_vector else smell_of_text(value)
        if smell:
            yield ImageIndicator(".".join(at) or "body", smell)


def _refuse_picture(text: str) -> str:
    smell = smell_of_text(text)
    if smell:
        raise PydanticCustomError(PICTURE_REFUSED, "{why}", {"why": _WHY[smell]})
    return text


NoPicture = AfterValidator(_refuse_picture)
"""For a text in a body: a `picture-refused` for what smells of a picture."""
