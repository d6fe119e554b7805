"""Decide what a change makes of an identity: pure rules, no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from broker_bridge.common.template_choice import choose_templates
from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.errors import TEMPLATES_TOO_MANY, ContractError
from broker_bridge.contract.wire import MAX_IDENTITY_BYTES

from .model import (
    EVERY_SITE,
    IDENTITY_DELETED,
    IDENTITY_EXISTS,
    PERSON_EXISTS,
    PERSON_MERGED,
    PERSON_UNKNOWN,
    RESERVED_USER_IDS,
    USER_ID_RESERVED,
    EnrollIdentity,
    ExternalKey,
    Identity,
    IdentityRecord,
    Template,
    holdings,
    modality_of,
)
from .wire_size import wire_bytes

KEYS_TOO_MANY = "keys-too-many"
# Keys of other systems for one identity, those that come with a merge not counted.
_MAX_KEYS = 100
# Stands for an unknown quality: neither the best nor among the bad.
_UNKNOWN_QUALITY = 0.5


@dataclass(frozen=True)
class Rules:
    """Limits of an identity.

    `templates_per_space` is the most templates in one space. `consent_assumed` is whether devices may receive
    a modality for which no consent is recorded.
    """

    templates_per_space: int = 5
    consent_assumed: bool = True


def identity_unknown(user_id: str) -> ContractError:
    return ContractError(PERSON_UNKNOWN, f"there is no person {user_id}")


def apply_enrollment(
    before: IdentityRecord, change: EnrollIdentity, version: int, now: datetime, rules: Rules
) -> IdentityRecord:
    """Return the record after `change`.

    It is `before` itself, version included, if the change has no effect. A deleted identity that is enrolled
    again keeps only `synced_sites`, external keys and refused consent. Raises ContractError(`person-unknown`,
    `person-exists`, `person-merged`, `identity-exists`, `identity-deleted`, `user-id-reserved`,
    `keys-too-many`).
    """
    known, live = before.identity, before.live
    user_id = known.user_id if known else change.user_id
    _check_admissible(known, live, change, user_id)
    # A new enrollment must not bring back the face of a deleted identity.
    templates = before.templates if live else ()
    if templates is not None:
        templates = add_templates(templates, change, rules)
    sites = live.sites if live else (EVERY_SITE,)
    if change.sites is not None:
        sites = tuple(sorted(set(change.sites))) or (EVERY_SITE,)
    counts = holdings(user_id, templates) if templates is not None else known.holdings if known else ()
    after = Identity(
        user_id=user_id,
        version=version,
        sites=sites,
        synced_sites=tuple(sorted({*(known.synced_sites if known else ()), *sites})),
        holdings=counts,
        display_name=_changed_text(change.display_name, live.display_name if live else None),
        flag=_changed_text(change.flag, live.flag if live else None),
        kind=change.kind or (live.kind if live else "employee"),
        created_at=known.created_at if known else now,
        updated_at=now,
        created_version=live.created_version if live else version,
        external=_with_key(known, change),
        consent=consent_after(known, change, [holding.space for holding in counts], rules),
    )
    if live and replace(after, version=live.version, updated_at=live.updated_at) == live:
        return before
    _check_not_enrolled(live, change)
    return IdentityRecord(after, templates)


def _check_not_enrolled(live: Identity | None, change: EnrollIdentity) -> None:
    """Refuse an effect on an enrolled identity that the change may only create."""
    if live and change.mode == "create":
        detail = (
            f"{live.user_id} is enrolled already and was not changed: choose another user id, or add the "
            "photos to that identity with mode=add"
        )
        raise ContractError(IDENTITY_EXISTS, detail)


def _check_admissible(
    known: Identity | None, live: Identity | None, change: EnrollIdentity, user_id: str
) -> None:
    if known and known.merge:
        raise ContractError(PERSON_MERGED, f"{user_id} was merged into {known.merge.into}: enroll there")
    if known is None and user_id in RESERVED_USER_IDS:
        detail = f"{user_id} is a word of the API's paths: choose another user id"
        raise ContractError(USER_ID_RESERVED, detail)
    if known and change.must_be_new:
        raise ContractError(PERSON_EXISTS, f"user id {user_id} is already taken, perhaps by a deleted person")
    if change.mode and known and known.deleted and not known.erased:
        detail = f"{user_id} is deleted and can be restored: restore it first, or choose another user id"
        raise ContractError(IDENTITY_DELETED, detail)
    if (change.must_exist or change.mode == "add") and live is None:
        raise identity_unknown(user_id)


def _changed_text(new: str | None, current: str | None) -> str | None:
    """Return the text after a change.

    None leaves the current one, an empty text clears it.
    """
    return current if new is None else new or None


def _with_key(known: Identity | None, change: EnrollIdentity) -> tuple[ExternalKey, ...]:
    keys = known.external if known else ()
    if change.external is None or change.external in keys:
        return keys
    if len(keys) >= _MAX_KEYS:
        raise ContractError(KEYS_TOO_MANY, f"{change.user_id} already has {len(keys)} keys of other systems")
    return (*keys, change.external)


def check_size(identity: Identity, dimensions: Mapping[str, int]) -> None:
    """Check that one message can hold the whole identity.

    Raises ContractError(`templates-too-many`).
    """
    if wire_bytes(identity, dimensions) > MAX_IDENTITY_BYTES:
        raise ContractError(
            TEMPLATES_TOO_MANY, f"{identity.user_id} would have more templates than a message holds"
        )


def consent_after(
    known: Identity | None, change: EnrollIdentity, spaces: Sequence[str], rules: Rules
) -> Mapping[str, bool]:
    """Return the consent after `change`, with an entry for each modality of `spaces`."""
    current = known.consent if known else {}
    if known and known.deleted:
        # A refusal outlasts a deletion: a source that enrolls the identity again must not undo it.
        current = {modality: given for modality, given in current.items() if not given}
    consent = {**current, **(change.consent or {})}
    for modality in sorted({modality_of(space) for space in spaces}):
        consent.setdefault(modality, rules.consent_assumed)
    return consent


def add_templates(
    templates: Sequence[Template], change: EnrollIdentity, rules: Rules
) -> tuple[Template, ...]:
    """Return `templates` after `change`, within the limit of each space.

    A template that is present already is not added.
    """
    kept = [template for template in templates if template.modality != change.replace_modality]
    present = {(template.space, template.vector) for template in kept}
    changed_spaces = set()
    for template in change.templates:
        if (template.space, template.vector) not in present:
            present.add((template.space, template.vector))
            changed_spaces.add(template.space)
            kept.append(template)
    if change.replace_modality:
        # A vector that is replaced by itself keeps its template, and so is no change.
        known = {(template.space, template.vector): template for template in templates}
        kept = [known.get((template.space, template.vector), template) for template in kept]
    dropped = {
        template.template_id for space in changed_spaces for template in surplus_templates(kept, space, rules)
    }
    return tuple(template for template in kept if template.template_id not in dropped)


def surplus_templates(templates: Sequence[Template], space: str, rules: Rules) -> list[Template]:
    """Return the templates of a space beyond the limit.

    All but the most different good ones are. If these are fewer than the limit, the best of the others stay:
    otherwise a repeated enrollment would find room for the templates that it lost before, and be a change.
    """
    active = [one for one in templates if one.space == space and one.superseded_by is None]
    if len(active) <= rules.templates_per_space:
        return []
    vectors = np.stack([to_array(template.vector) for template in active])
    qualities = [_UNKNOWN_QUALITY if one.quality is None else one.quality for one in active]
    chosen = choose_templates(vectors, qualities, rules.templates_per_space)
    others = [position for position in range(len(active)) if position not in chosen]
    others.sort(key=lambda position: -qualities[position])
    dropped = others[rules.templates_per_space - len(chosen) :]
    return [active[position] for position in sorted(dropped)]


def remove_modality(before: IdentityRecord, modality: str, version: int, now: datetime) -> IdentityRecord:
    """Return the record without templates of a modality.

    Raises ContractError(`person-unknown`) where there are none.
    """
    identity = before.live
    if identity is None or before.templates is None:
        raise identity_unknown(identity.user_id if identity else "of that id")
    templates = tuple(template for template in before.templates if template.modality != modality)
    if len(templates) == len(before.templates):
        raise ContractError(PERSON_UNKNOWN, f"{identity.user_id} has no {modality} template")
    counts = holdings(identity.user_id, templates)
    return IdentityRecord(replace(identity, version=version, holdings=counts, updated_at=now), templates)


def make_tombstone(identity: Identity, version: int, now: datetime) -> Identity:
    """Return the tombstone of a soft-deleted identity."""
    return replace(identity, version=version, deleted=True, deleted_at=now, updated_at=now)


def restore_tombstone(tombstone: Identity, version: int, now: datetime) -> Identity:
    """Return the identity of a tombstone, as it was before the deletion."""
    return replace(
        tombstone, version=version, created_version=version, deleted=False, deleted_at=None, updated_at=now
    )


def make_erased_tombstone(identity: Identity, version: int, now: datetime) -> Identity:
    """Return the tombstone of an erased identity, without any data of the person."""
    return Identity(
        user_id=identity.user_id,
        version=version,
        sites=identity.sites,
        synced_sites=identity.synced_sites,
        deleted=True,
        deleted_at=now,
        updated_at=now,
        erased=True,
    )
