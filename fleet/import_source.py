"""What a source yields: one entry for each person or line, with what is wrong about it."""

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
    """A picture that lies in `file`, inside `root`."""

    file: Path
    root: Path


@dataclass(frozen=True)
class ImportCandidate:
    """A person to import: `body` is what the API takes, `where` says in a report where it is from."""

    where: str
    user_id: str
    body: bytes
    photos: tuple[PhotoFile, ...] = ()


@dataclass(frozen=True)
class ImportRefusal:
    """What did not come in, and why: a stable `code` and a sentence."""

    where: str
    user_id: str | None
    code: str
    detail: str


@dataclass(frozen=True)
class SourceEntry:
    """One person or line of the source."""

    candidate: ImportCandidate | None = None
    refusals: tuple[ImportRefusal, ...] = ()


@dataclass(frozen=True)
class ImportSource:
    """Everybody in a source, read as they are asked for; `total` is about how many, None if unknown."""

    entries: Iterator[SourceEntry]
    total: int | None = None


def read_user_id(text: object) -> str | None:
    """`text` if it is a user id."""
    try:
        return _USER_ID.validate_python(text, strict=True)
    except ValidationError:
        return None


def to_entry(
    where: str, document: Mapping[str, Any], sites: list[str], photos: tuple[PhotoFile, ...] = ()
) -> SourceEntry:
    """An entry of a person who is at `sites`, if the source names none."""
    user_id = read_user_id(document.get("user_id"))
    if user_id is None:
        return SourceEntry(refusals=(ImportRefusal(where, None, REQUEST_INVALID, f"user_id: {NO_USER_ID}"),))
    if sites and document.get("sites") is None:
        document = {**document, "sites": sites}
    # ASCII: half of a surrogate pair could not be sent otherwise, for the API to refuse.
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    return SourceEntry(ImportCandidate(where, user_id, body, photos))
