"""Define the entries of an import source, one per identity or line."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.ids import UserId

REQUEST_INVALID = "request-invalid"
NO_USER_ID = "this is no user id; an id is like EMP-12345: letters, digits and _ . @ -"

_USER_ID: TypeAdapter[str] = TypeAdapter(UserId)


@dataclass(frozen=True)
class PhotoFile:
    """A picture in `file`, inside the folder `root`."""

    file: Path
    root: Path


@dataclass(frozen=True)
class ImportCandidate:
    """An identity to import.

    `body` is its JSON for the API, `where` is its position in the source for reports.
    """

    where: str
    user_id: str
    body: bytes
    photos: tuple[PhotoFile, ...] = ()


@dataclass(frozen=True)
class ImportRefusal:
    """An item that was not imported, with a stable `code` and a sentence."""

    where: str
    user_id: str | None
    code: str
    detail: str


@dataclass(frozen=True)
class SourceEntry:
    """One identity or line of the source."""

    candidate: ImportCandidate | None = None
    refusals: tuple[ImportRefusal, ...] = ()


@dataclass(frozen=True)
class ImportSource:
    """The entries of a source, read on demand.

    `total` is their approximate number, None if unknown.
    """

    entries: Iterator[SourceEntry]
    total: int | None = None


def read_user_id(text: object) -> str | None:
    """Return `text` if it is a user id, else None."""
    try:
        return _USER_ID.validate_python(text, strict=True)
    except ValidationError:
        return None


def to_entry(
    where: str, document: Mapping[str, Any], sites: list[str], photos: tuple[PhotoFile, ...] = ()
) -> SourceEntry:
    """Return the entry of `document`; `sites` apply if the document names none."""
    user_id = read_user_id(document.get("user_id"))
    if user_id is None:
        return SourceEntry(refusals=(ImportRefusal(where, None, REQUEST_INVALID, f"user_id: {NO_USER_ID}"),))
    if sites and document.get("sites") is None:
        document = {**document, "sites": sites}
    # ASCII, because a lone surrogate cannot be encoded in UTF-8; the API refuses it with a code.
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    return SourceEntry(ImportCandidate(where, user_id, body, photos))
