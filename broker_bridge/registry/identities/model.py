"""Define identities (enrolled persons), their templates, and changes of them."""

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
"""In `sites`: the identity belongs to every site, also to those that come later."""

PERSON_UNKNOWN = "person-unknown"
PERSON_MERGED = "person-merged"
PERSON_EXISTS = "person-exists"
IDENTITY_EXISTS = "identity-exists"
IDENTITY_DELETED = "identity-deleted"

EnrollmentMode = Literal["create", "add"]
"""Whether an enrollment may only create an identity, or only add to an enrolled one."""

USER_ID_RESERVED = "user-id-reserved"
RESERVED_USER_IDS = frozenset({"bulk", "names"})
"""Words that stand in paths of the REST API where other paths have a user id."""

SYSTEM = "system"
"""The author of a change that comes from the product itself."""


@dataclass(frozen=True)
class Template:
    """One embedding of an identity.

    `vector` is unit-length little-endian float32 bytes, `quality` lies in 0..1. `merged_from` is the user id
    of the identity that a merge copied it from. `superseded_by` is the user id of the merged identity
    with templates that replaced this one: it is kept for an undo and never compared with.
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
    """Return the modality of a space: `face` of `face:arcface-w600k-r50`."""
    return space.partition(":")[0]


@dataclass(frozen=True)
class ExternalKey:
    """The unique id of an identity in another system (seed 001).

    `source_system` has no slash.
    """

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
    """Count and digest of an identity's templates in one space.

    They enter the digest of its sites.
    """

    space: str
    digest: Digest


@dataclass(frozen=True)
class IdentityMerge:
    """The merge of an identity `into` another, with what an undo gives back to both."""

    into: str
    external: tuple[ExternalKey, ...]
    sites_before: tuple[str, ...]
    consent_before: Mapping[str, bool]


@dataclass(frozen=True)
class Identity:
    """An enrolled person as of the last change.

    `synced_sites` are the sites that ever had the identity: each of them receives every change of it.
    `created_version` is the version of the (last) enrollment or restore, 0 if unknown. `consent` has an entry
    for each modality held: whether devices may receive it. `merge` is set on the tombstone of a merged
    identity, `erased` on a tombstone of which nothing else is left.
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
        """Return whether cameras of this site should recognise the identity."""
        return not self.deleted and (EVERY_SITE in self.sites or site_id in self.sites)

    def may_be_sent(self, space: str) -> bool:
        """Return whether devices may receive templates of a space."""
        return self.consent.get(modality_of(space), True)

    @property
    def sent_holdings(self) -> tuple[TemplateCount, ...]:
        """The `holdings` that devices may receive."""
        return tuple(holding for holding in self.holdings if self.may_be_sent(holding.space))


@dataclass(frozen=True)
class IdentityRecord:
    """An identity with all its templates, superseded ones included.

    `identity` is None where there is none. `templates` is None where they were not read; a write then leaves
    them alone.
    """

    identity: Identity | None = None
    templates: tuple[Template, ...] | None = ()

    @property
    def live(self) -> Identity | None:
        """The identity, unless it is deleted."""
        return self.identity if self.identity and not self.identity.deleted else None


@dataclass(frozen=True)
class EnrollIdentity:
    """A change that creates an identity, adds templates to it, or changes its fields.

    None leaves a field alone. `replace_modality` drops the templates of that modality first. An empty `sites`
    means every site, an empty `display_name` or `flag` clears it, and a new identity without `kind` is an
    employee. `must_exist` refuses to create an identity or to bring back a deleted one; `must_be_new` refuses
    everything else. `mode` refuses the other case, and an identity that can be restored; creating an identity
    once more as it is has no effect. With `external` the holder of that key is changed; without a holder the
    identity `user_id` gets the key.
    `by` is the author (see AuditEntry), `audit_details` what the audit entry has besides.
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
    mode: EnrollmentMode | None = None
    external: ExternalKey | None = None
    consent: Mapping[str, bool] | None = None
    by: str = SYSTEM
    audit_details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeleteIdentity:
    """A change that soft-deletes an identity, named by user id or by an external key."""

    user_id: str = ""
    external: ExternalKey | None = None
    by: str = SYSTEM


IdentityChange = EnrollIdentity | DeleteIdentity


@dataclass(frozen=True)
class IdentityDelta:
    """An identity as of now, with its templates in the requested spaces.

    Templates that devices may not receive are left out.
    """

    identity: Identity
    templates: tuple[Template, ...]


def active_templates(identity: Identity, templates: Iterable[Template]) -> tuple[Template, ...]:
    """Return the templates that count and that devices may receive.

    A deleted identity has none.
    """
    return tuple(
        template
        for template in templates
        if template.superseded_by is None and not identity.deleted and identity.may_be_sent(template.space)
    )


@dataclass(frozen=True)
class DeltaPage:
    """The deltas of a site after a version, read at one point in time.

    `deltas` complete the site's history up to `to_version`; with `done` that is its head.
    """

    history: History
    head_version: int
    to_version: int
    deltas: tuple[IdentityDelta, ...]
    done: bool


def holdings(user_id: str, templates: Iterable[Template]) -> tuple[TemplateCount, ...]:
    """Return count and digest of an identity's templates by space.

    Superseded templates are not counted.
    """
    vectors: dict[str, list[bytes]] = {}
    for template in templates:
        if template.superseded_by is None:
            vectors.setdefault(template.space, []).append(template.vector)
    return tuple(
        TemplateCount(space, Digest.of(user_id, space, in_space))
        for space, in_space in sorted(vectors.items())
    )
