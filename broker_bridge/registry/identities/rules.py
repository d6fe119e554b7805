"""What an order makes of a person: pure rules, no I/O."""

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
    PERSON_EXISTS,
    PERSON_MERGED,
    PERSON_UNKNOWN,
    EnrollIdentity,
    ExternalKey,
    Identity,
    IdentityRecord,
    Template,
    holdings,
    modality_of,
    wire_bytes,
)

KEYS_TOO_MANY = "keys-too-many"
# Under so many keys one person is known to other systems at most, but for those that come with a merge.
_MOST_KEYS = 100
# A template of which nobody has said how good it is: neither the best nor one of the bad.
_UNTOLD_QUALITY = 0.5


@dataclass(frozen=True)
class Rules:
    """`templates_per_space` are kept of a person at most; `consent_assumed` is whether a modality may be sent
    to devices of which nobody has said anything."""

    templates_per_space: int = 5
    consent_assumed: bool = True


def unknown(user_id: str) -> ContractError:
    return ContractError(PERSON_UNKNOWN, f"there is no person {user_id}")


def enrolled(
    before: IdentityRecord, order: EnrollIdentity, version: int, now: datetime, rules: Rules
) -> IdentityRecord:
    """The person after `order`; the same as before, version and all, if it changes nothing.

    A deleted person who is enrolled again starts afresh, except for `reach`, external keys and refused
    consent. Raises ContractError(`person-unknown`, `person-exists`, `person-merged`, `keys-too-many`).
    """
    known, kept = before.identity, before.live
    user_id = known.user_id if known else order.user_id
    if known and known.merge:
        raise ContractError(PERSON_MERGED, f"{user_id} went into {known.merge.into}: enroll there")
    if known and order.must_be_new:
        raise ContractError(PERSON_EXISTS, f"there is a person {user_id} already, or was")
    if order.must_exist and kept is None:
        raise unknown(user_id)
    templates = before.templates
    if kept is None:
        # Enrolling somebody again must not bring back the face that was deleted.
        templates = ()
    if templates is not None:
        templates = with_added(templates, order, rules)
    sites = kept.sites if kept else (EVERY_SITE,)
    if order.sites is not None:
        sites = tuple(sorted(set(order.sites))) or (EVERY_SITE,)
    held = holdings(user_id, templates) if templates is not None else known.holdings if known else ()
    after = Identity(
        user_id=user_id,
        version=version,
        sites=sites,
        synced_sites=tuple(sorted({*(known.synced_sites if known else ()), *sites})),
        holdings=held,
        display_name=_ordered(order.display_name, kept.display_name if kept else None),
        flag=_ordered(order.flag, kept.flag if kept else None),
        kind=order.kind or (kept.kind if kept else "employee"),
        created_at=known.created_at if known else now,
        updated_at=now,
        created_version=kept.created_version if kept else version,
        external=_with_key(known, order),
        consent=consent_after(known, order, [one.space for one in held], rules),
    )
    if kept and replace(after, version=kept.version, updated_at=kept.updated_at) == kept:
        return before
    return IdentityRecord(after, templates)


def _ordered(said: str | None, kept: str | None) -> str | None:
    """What stands after an order: None leaves what was there, empty clears it."""
    return kept if said is None else said or None


def _with_key(known: Identity | None, order: EnrollIdentity) -> tuple[ExternalKey, ...]:
    keys = known.external if known else ()
    if order.external is None or order.external in keys:
        return keys
    if len(keys) >= _MOST_KEYS:
        raise ContractError(KEYS_TOO_MANY, f"{order.user_id} has {len(keys)} keys of other systems already")
    return (*keys, order.external)


def check_size(person: Identity, dimensions: Mapping[str, int]) -> None:
    """Raise ContractError(`templates-too-many`) for a person whom no message holds; they travel whole."""
    if wire_bytes(person, dimensions) > MAX_IDENTITY_BYTES:
        raise ContractError(TEMPLATES_TOO_MANY, f"{person.user_id} would have more than a message holds")


def consent_after(
    known: Identity | None, order: EnrollIdentity, spaces: Sequence[str], rules: Rules
) -> Mapping[str, bool]:
    """A person's consent after `order`, settled for the modalities of `spaces`."""
    said = known.consent if known else {}
    if known and known.deleted:
        # What somebody has refused holds until they say otherwise, not until a source brings them again.
        said = {modality: given for modality, given in said.items() if not given}
    consent = {**said, **(order.consent or {})}
    for modality in sorted({modality_of(space) for space in spaces}):
        consent.setdefault(modality, rules.consent_assumed)
    return consent


def with_added(templates: Sequence[Template], order: EnrollIdentity, rules: Rules) -> tuple[Template, ...]:
    """`templates` after an order: none twice, and in a space no more than the rules allow."""
    kept = [one for one in templates if one.modality != order.replace_modality]
    present = {(one.space, one.vector) for one in kept}
    touched = set()
    for one in order.templates:
        if (one.space, one.vector) not in present:
            present.add((one.space, one.vector))
            touched.add(one.space)
            kept.append(one)
    if order.replace_modality:
        # The same vector once more is no change.
        known = {(one.space, one.vector): one for one in templates}
        kept = [known.get((one.space, one.vector), one) for one in kept]
    dropped = {one.template_id for space in touched for one in beyond_cap(kept, space, rules)}
    return tuple(one for one in kept if one.template_id not in dropped)


def beyond_cap(templates: Sequence[Template], space: str, rules: Rules) -> list[Template]:
    """Which templates of a space are too many: all but the most different good ones.

    If these are fewer than the cap, the best of the others stay: else a repeat would find room for what it
    brought before, and be a change.
    """
    active = [one for one in templates if one.space == space and one.superseded_by is None]
    if len(active) <= rules.templates_per_space:
        return []
    vectors = np.stack([to_array(one.vector) for one in active])
    qualities = [_UNTOLD_QUALITY if one.quality is None else one.quality for one in active]
    chosen = choose_templates(vectors, qualities, rules.templates_per_space)
    others = [place for place in range(len(active)) if place not in chosen]
    others.sort(key=lambda place: -qualities[place])
    dropped = others[rules.templates_per_space - len(chosen) :]
    return [active[place] for place in sorted(dropped)]


def without_modality(before: IdentityRecord, modality: str, version: int, now: datetime) -> IdentityRecord:
    """The person without templates of a modality; ContractError(`person-unknown`) where there are none."""
    person = before.live
    if person is None or before.templates is None:
        raise unknown(person.user_id if person else "of that id")
    templates = tuple(one for one in before.templates if one.modality != modality)
    if len(templates) == len(before.templates):
        raise ContractError(PERSON_UNKNOWN, f"{person.user_id} has no {modality} template")
    held = holdings(person.user_id, templates)
    return IdentityRecord(replace(person, version=version, holdings=held, updated_at=now), templates)


def removed(person: Identity, version: int, now: datetime) -> Identity:
    """The tombstone of a soft-deleted person."""
    return replace(person, version=version, deleted=True, deleted_at=now, updated_at=now)


def restored(person: Identity, version: int, now: datetime) -> Identity:
    """A soft-deleted person as they were."""
    return replace(
        person, version=version, created_version=version, deleted=False, deleted_at=None, updated_at=now
    )


def erased(person: Identity, version: int, now: datetime) -> Identity:
    """The tombstone of somebody of whom nothing else is kept."""
    return Identity(
        user_id=person.user_id,
        version=version,
        sites=person.sites,
        synced_sites=person.synced_sites,
        deleted=True,
        deleted_at=now,
        updated_at=now,
        erased=True,
    )
