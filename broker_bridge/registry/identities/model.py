"""Values of the registry: people, their templates, and orders to change them."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from broker_bridge.contract.digest import Digest
from broker_bridge.registry.mongo.versions import History

Kind = Literal["employee", "visitor"]

EVERY_SITE = "*"
"""In `sites`: the person belongs to every site, also to those that come later."""

PERSON_UNKNOWN = "person-unknown"
PERSON_MERGED = "person-merged"
PERSON_EXISTS = "person-exists"

SYSTEM = "system"
"""Who has given an order that comes from the product itself."""

# On the wire beside ids, names and vectors: keys, version, flag and punctuation of a person, of a template.
_PERSON_BYTES = 160
_TEMPLATE_BYTES = 150
# A character of a name takes at most this many bytes in JSON.
_ESCAPED = 6


@dataclass(frozen=True)
class Template:
    """One embedding of a person: `vector` is unit-length little-endian float32 bytes, `quality` 0..1.

    `merged_from` is the user id of whom it came with in a merge; `parked_by` that of whose templates took
    its place in one: it is kept for an undo, and compared with by nobody.
    """

    space: str
    vector: bytes = field(repr=False)
    quality: float | None = None
    source: str | None = None
    template_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: datetime | None = None
    merged_from: str | None = None
    superseded_by: str | None = None

    @property
    def modality(self) -> str:
        return modality_of(self.space)


def modality_of(space: str) -> str:
    """`face` of `face:arcface-w600k-r50`."""
    return space.partition(":")[0]


@dataclass(frozen=True)
class ExternalKey:
    """A person as another system knows them (seed 001): one of ours per key. `source_system` has no slash."""

    source_system: str
    external_id: str

    @cached_property
    def text(self) -> str:
        return f"{self.source_system}/{self.external_id}"

    @classmethod
    def parse(cls, text: str) -> "ExternalKey":
        source_system, _, external_id = text.partition("/")
        return cls(source_system, external_id)


@dataclass(frozen=True)
class TemplateCount:
    """What a person holds in one space, for the site's digest."""

    space: str
    digest: Digest


@dataclass(frozen=True)
class IdentityMerge:
    """How a person went into another: what an undo gives back, to both."""

    into: str
    external: tuple[ExternalKey, ...]
    sites_before: tuple[str, ...]
    consent_before: Mapping[str, bool]


@dataclass(frozen=True)
class Identity:
    """A person at their last change. `reach` are the sites that ever had them and so hear of each change.

    `born` is the version at which they (last) came to be, `consent` whether a modality may be sent to
    devices, with an entry for each modality held. `merge` says that this tombstone went into somebody else,
    `erased` that nothing but the tombstone is left.
    """

    user_id: str
    version: int
    sites: tuple[str, ...]
    synced_sites: tuple[str, ...]
    holdings: tuple[TemplateCount, ...] = ()
    display_name: str | None = None
    flag: str | None = None
    kind: Kind = "employee"
    deleted: bool = False
    deleted_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_version: int = 0
    external: tuple[ExternalKey, ...] = ()
    consent: Mapping[str, bool] = field(default_factory=dict)
    merge: IdentityMerge | None = None
    erased: bool = False

    def belongs_to(self, site_id: str) -> bool:
        """Whether cameras of this site should recognise the person."""
        return not self.deleted and (EVERY_SITE in self.sites or site_id in self.sites)

    def may_be_sent(self, space: str) -> bool:
        """Whether templates of a space may leave the registry for a device."""
        return self.consent.get(modality_of(space), True)

    @property
    def sent_holdings(self) -> tuple[TemplateCount, ...]:
        """Those of `holdings` that devices hold too."""
        return tuple(held for held in self.holdings if self.may_be_sent(held.space))


@dataclass(frozen=True)
class IdentityRecord:
    """A person and all their templates, parked ones too; nobody where there is no such person.

    `templates` is None where they were not read, since nothing is to happen to them.
    """

    identity: Identity | None = None
    templates: tuple[Template, ...] | None = ()

    @property
    def live(self) -> Identity | None:
        """The person, unless deleted."""
        return self.identity if self.identity and not self.identity.deleted else None


@dataclass(frozen=True)
class EnrollIdentity:
    """An order to the registry: what to add to a person or change about them; None leaves a field alone.

    `replace_modality` drops the templates of that modality first. An empty `sites` means every site, an empty
    `display_name` or `flag` clears it, whoever is not said to be a visitor is made an employee. `must_exist`
    refuses to make a person, or to bring back a deleted one; `must_be_new` refuses everything else. With
    `external` the person is the one who has that key, and only if there is none the one of `user_id`.
    `by` is who ordered it (see AuditEntry), `noted` what the audit should say besides.
    """

    user_id: str
    templates: tuple[Template, ...] = ()
    replace_modality: str | None = None
    display_name: str | None = None
    flag: str | None = None
    sites: tuple[str, ...] | None = None
    kind: Kind | None = None
    must_exist: bool = False
    must_be_new: bool = False
    external: ExternalKey | None = None
    consent: Mapping[str, bool] | None = None
    by: str = SYSTEM
    audit_details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeleteIdentity:
    """An order to soft-delete a person, named by user id or by an external key."""

    user_id: str = ""
    external: ExternalKey | None = None
    by: str = SYSTEM


IdentityChange = EnrollIdentity | DeleteIdentity


@dataclass(frozen=True)
class IdentityDelta:
    """A person as they are now, with the templates in the spaces asked for that may be sent."""

    identity: Identity
    templates: tuple[Template, ...]


def active_templates(person: Identity, templates: Iterable[Template]) -> tuple[Template, ...]:
    """Those of a person's templates that count and may be sent; none of somebody who is deleted."""
    return tuple(
        one
        for one in templates
        if one.superseded_by is None and not person.deleted and person.may_be_sent(one.space)
    )


@dataclass(frozen=True)
class DeltaPage:
    """What has changed for a site since a version, read at one point in time.

    `to_version` is how far the site's history is told by `changed`; `done` says that this is its head.
    """

    history: History
    head_version: int
    to_version: int
    deltas: tuple[IdentityDelta, ...]
    done: bool


def holdings(user_id: str, templates: Iterable[Template]) -> tuple[TemplateCount, ...]:
    """Count and digest per space of one person's templates, but for parked ones."""
    vectors: dict[str, list[bytes]] = {}
    for template in templates:
        if template.superseded_by is None:
            vectors.setdefault(template.space, []).append(template.vector)
    return tuple(
        TemplateCount(space, Digest.of(user_id, space, held)) for space, held in sorted(vectors.items())
    )


def wire_bytes(person: Identity, dimensions: Mapping[str, int]) -> int:
    """About how many bytes a person with their templates in the spaces of `dimensions` takes of a message."""
    named = len(person.user_id) + _ESCAPED * len(person.display_name or "")
    return (
        _PERSON_BYTES
        + named
        + sum(
            held.digest.count * template_bytes(4 * dimensions[held.space])
            for held in person.sent_holdings
            if held.space in dimensions
        )
    )


def template_bytes(vector_bytes: int) -> int:
    """About how many bytes a template with a vector of `vector_bytes` takes of a message."""
    return vector_bytes * 4 // 3 + _TEMPLATE_BYTES
