"""Values of the registry: people, templates, and the pure rules by which an order changes a person."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from bson.binary import VECTOR_SUBTYPE, Binary

from broker_bridge.contract.digest import Digest

from .mongo import Document
from .versions import History

Kind = Literal["employee", "visitor"]

EVERY_SITE = "*"
"""In `sites`: the person belongs to every site, also to those that come later."""

BULK = 200
"""People per transaction of a bulk write: past a few hundred a transaction only grows."""

# BSON vector header: element type float32, no padding (BSON specification, binary subtype 9).
_FLOAT32_HEADER = b"\x27\x00"

# On the wire beside ids, names and vectors: keys, version, flag and punctuation of a person, of a template.
_PERSON_BYTES = 160
_TEMPLATE_BYTES = 150
# A character of a name takes at most this many bytes in JSON.
_ESCAPED = 6


@dataclass(frozen=True)
class Template:
    """One embedding of a person: `vector` is unit-length little-endian float32 bytes, `quality` 0..1."""

    space: str
    vector: bytes = field(repr=False)
    quality: float | None = None
    source: str | None = None
    template_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: datetime | None = None


@dataclass(frozen=True)
class SpaceHolding:
    """What a person holds in one space, for the site's digest."""

    space: str
    digest: Digest


@dataclass(frozen=True)
class Person:
    """A person at their last change. `reach` are the sites that ever had them and so hear of each change."""

    user_id: str
    version: int
    sites: tuple[str, ...]
    reach: tuple[str, ...]
    holdings: tuple[SpaceHolding, ...] = ()
    display_name: str | None = None
    flag: str | None = None
    kind: Kind = "employee"
    deleted: bool = False
    deleted_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def belongs_to(self, site_id: str) -> bool:
        """Whether cameras of this site should recognise the person."""
        return not self.deleted and (EVERY_SITE in self.sites or site_id in self.sites)


@dataclass(frozen=True)
class Enrollment:
    """An order to the registry: what to add to a person or change about them; None leaves a field alone.

    `replace_modality` drops the templates of that modality first. An empty `sites` means every site; an empty
    `display_name` or `flag` clears it; whoever is not said to be a visitor is made an employee. `must_exist`
    refuses to make a person, or to bring back a deleted one.
    """

    user_id: str
    templates: tuple[Template, ...] = ()
    replace_modality: str | None = None
    display_name: str | None = None
    flag: str | None = None
    sites: tuple[str, ...] | None = None
    kind: Kind | None = None
    must_exist: bool = False


@dataclass(frozen=True)
class Changed:
    """A person as they are now, with their templates in the spaces asked for."""

    person: Person
    templates: tuple[Template, ...]


@dataclass(frozen=True)
class SiteChanges:
    """What has changed for a site since a version, read at one point in time.

    `to_version` is how far the site's history is told by `changed`; `done` says that this is its head.
    """

    history: History
    head_version: int
    to_version: int
    changed: tuple[Changed, ...]
    done: bool


def amend(
    known: Person | None, order: Enrollment, held: Sequence[Template], version: int, now: datetime
) -> Person:
    """The person after `order`; `held` are all templates they have then.

    A deleted person who is enrolled again starts afresh, except for `reach`.
    """
    kept = None if known is None or known.deleted else known
    sites = kept.sites if kept else (EVERY_SITE,)
    if order.sites is not None:
        sites = tuple(sorted(set(order.sites))) or (EVERY_SITE,)
    return Person(
        user_id=order.user_id,
        version=version,
        sites=sites,
        reach=tuple(sorted({*(known.reach if known else ()), *sites})),
        holdings=holdings(order.user_id, held),
        display_name=_ordered(order.display_name, kept.display_name if kept else None),
        flag=_ordered(order.flag, kept.flag if kept else None),
        kind=order.kind or (kept.kind if kept else "employee"),
        created_at=known.created_at if known else now,
        updated_at=now,
    )


def _ordered(said: str | None, kept: str | None) -> str | None:
    """What stands after an order: None leaves what was there, empty clears it."""
    return kept if said is None else said or None


def remove(known: Person, version: int, now: datetime) -> Person:
    """The tombstone of a soft-deleted person."""
    return replace(known, version=version, deleted=True, deleted_at=now, updated_at=now)


def holdings(user_id: str, templates: Iterable[Template]) -> tuple[SpaceHolding, ...]:
    """Count and digest per space of one person's templates."""
    vectors: dict[str, list[bytes]] = {}
    for template in templates:
        vectors.setdefault(template.space, []).append(template.vector)
    return tuple(
        SpaceHolding(space, Digest.of(user_id, space, held)) for space, held in sorted(vectors.items())
    )


def wire_bytes(person: Person, dimensions: Mapping[str, int]) -> int:
    """About how many bytes a person with their templates in the spaces of `dimensions` takes of a message."""
    named = len(person.user_id) + _ESCAPED * len(person.display_name or "")
    return (
        _PERSON_BYTES
        + named
        + sum(
            held.digest.count * template_bytes(4 * dimensions[held.space])
            for held in person.holdings
            if held.space in dimensions
        )
    )


def template_bytes(vector_bytes: int) -> int:
    """About how many bytes a template with a vector of `vector_bytes` takes of a message."""
    return vector_bytes * 4 // 3 + _TEMPLATE_BYTES


def in_chunks(orders: Sequence[Enrollment]) -> Iterator[list[Enrollment]]:
    """`orders` in runs of at most BULK in which nobody is named twice."""
    chunk: dict[str, Enrollment] = {}
    for order in orders:
        if order.user_id in chunk or len(chunk) == BULK:
            yield list(chunk.values())
            chunk = {}
        chunk[order.user_id] = order
    if chunk:
        yield list(chunk.values())


def cut(people: Sequence[Person], dimensions: Mapping[str, int], max_bytes: int) -> list[Person]:
    """As many of `people` as fit into a message of `max_bytes`, at least one (of those there are)."""
    total = 0
    for place, person in enumerate(people):
        total += wire_bytes(person, dimensions)
        if total > max_bytes and place:
            return list(people[:place])
    return list(people)


def person_to_document(person: Person) -> Document:
    return {
        "_id": person.user_id,
        "version": person.version,
        "sites": list(person.sites),
        "reach": list(person.reach),
        "holdings": [
            {"space": held.space, "count": held.digest.count, "digest": held.digest.hex}
            for held in person.holdings
        ],
        "display_name": person.display_name,
        "flag": person.flag,
        "kind": person.kind,
        "deleted": person.deleted,
        "deleted_at": person.deleted_at,
        "created_at": person.created_at,
        "updated_at": person.updated_at,
    }


def person_from_document(found: Document) -> Person:
    return Person(
        user_id=found["_id"],
        version=found["version"],
        sites=tuple(found["sites"]),
        reach=tuple(found["reach"]),
        holdings=tuple(
            SpaceHolding(held["space"], Digest(held["count"], int(held["digest"], 16)))
            for held in found["holdings"]
        ),
        display_name=found["display_name"],
        flag=found["flag"],
        # People of before there were visitors have none.
        kind=found.get("kind", "employee"),
        deleted=found["deleted"],
        deleted_at=found["deleted_at"],
        created_at=found["created_at"],
        updated_at=found["updated_at"],
    )


def template_to_document(user_id: str, template: Template, now: datetime) -> Document:
    return {
        "_id": template.template_id,
        "user_id": user_id,
        "space": template.space,
        "vector": Binary(_FLOAT32_HEADER + template.vector, VECTOR_SUBTYPE),
        "quality": template.quality,
        "source": template.source,
        "created_at": now,
    }


def template_from_document(found: Any) -> Template:
    return Template(
        space=found["space"],
        vector=bytes(found["vector"])[len(_FLOAT32_HEADER) :],
        quality=found["quality"],
        source=found["source"],
        template_id=found["_id"],
        created_at=found["created_at"],
    )
