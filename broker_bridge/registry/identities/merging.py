"""Merge two identities of one person, and undo a merge.

An undo is possible until the tombstone of the merged identity is purged.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.versions import Versions

from .model import EVERY_SITE, SYSTEM, Identity, IdentityMerge, IdentityRecord, Template, holdings
from .rules import Rules, check_size, identity_unknown, surplus_templates
from .store import IdentityStore

MERGE_IMPOSSIBLE = "merge-impossible"


class IdentityMerges:
    """Merges of identities and their undo."""

    def __init__(self, store: IdentityStore, versions: Versions, audit: Audit, rules: Rules) -> None:
        self._store = store
        self._versions = versions
        self._audit = audit
        self._rules = rules

    async def merge(self, source: str, into: str, *, by: str = SYSTEM) -> Identity:
        """Merge the identity `source` into `into` and return the latter.

        Raises ContractError.
        """
        if source == into:
            raise ContractError(MERGE_IMPOSSIBLE, f"{source} cannot be merged into itself")

        async def work(session: Any) -> Identity:
            first = await self._versions.take(session, 2)
            before = await self._store.read_records(session, [source, into])
            now = to_milliseconds(utc_now())
            target, tombstone = merge_records(before[into], before[source], first, now, self._rules)
            # An external key is unique: the source must give it up before the target takes it.
            removed = IdentityRecord(tombstone, before[source].templates)
            await self._store.write(session, before, {source: removed})
            await self._store.write(session, before, {into: target})
            entry = AuditEntry(who=by, what="person.merged", subject=source, at=now, after={"into": into})
            await self._audit.record(entry, session)
            return _identity_in(target, into)

        return await self._store.transact(work)

    async def undo(self, source: str, *, by: str = SYSTEM) -> Identity:
        """Undo the merge of the identity `source` and return it. Raises ContractError."""

        async def work(session: Any) -> Identity:
            first = await self._versions.take(session, 2)
            before = await self._store.read_records(session, [source])
            tombstone = before[source].identity
            if tombstone is None or tombstone.merge is None:
                raise ContractError(MERGE_IMPOSSIBLE, f"{source} is not merged: there is nothing to undo")
            into = tombstone.merge.into
            before |= await self._store.read_records(session, [into])
            now = to_milliseconds(utc_now())
            target, revived = unmerge_records(before[into], before[source], first, now, self._rules)
            await self._store.write(session, before, {into: target})
            await self._store.write(session, before, {source: revived})
            entry = AuditEntry(who=by, what="person.unmerged", subject=source, at=now, after={"from": into})
            await self._audit.record(entry, session)
            return _identity_in(revived, source)

        return await self._store.transact(work)

    async def merged_user_ids(self, user_id: str) -> list[str]:
        """Return the user ids that were merged into an identity, also by way of others."""
        return sorted(await self._store.merged_into(None, user_id))


def merge_records(
    target: IdentityRecord, source: IdentityRecord, version: int, now: datetime, rules: Rules
) -> tuple[IdentityRecord, Identity]:
    """Return the target after a merge, and the tombstone of the source.

    They get `version` + 1 and `version`. The source's templates are copied; the target's own templates beyond
    the limit are superseded. The sites of both count, and a modality may be sent only if neither refuses it.
    Name and flag stay the target's.
    """
    identity, other = target.live, source.live
    if identity is None or other is None or target.templates is None or source.templates is None:
        raise identity_unknown("to merge: both must exist and not be deleted")
    templates = _with_copies(target.templates, other.user_id, source.templates, rules)
    sites = _joined_sites(identity.sites, other.sites)
    after = replace(
        identity,
        version=version + 1,
        sites=sites,
        synced_sites=tuple(sorted({*identity.synced_sites, *sites})),
        holdings=holdings(identity.user_id, templates),
        external=(*identity.external, *other.external),
        consent=_joined_consent(identity.consent, other.consent),
        updated_at=now,
    )
    check_size(after, {template.space: len(template.vector) // 4 for template in templates})
    tombstone = replace(
        other,
        version=version,
        deleted=True,
        deleted_at=now,
        updated_at=now,
        external=(),
        merge=IdentityMerge(identity.user_id, other.external, identity.sites, identity.consent),
    )
    return IdentityRecord(after, templates), tombstone


def unmerge_records(
    target: IdentityRecord, source: IdentityRecord, version: int, now: datetime, rules: Rules
) -> tuple[IdentityRecord, IdentityRecord]:
    """Return target and source as before their merge, at `version` and `version` + 1.

    Later changes of the target stay. The target may be a tombstone by now, unless it was merged itself.
    """
    identity, other = target.identity, source.identity
    if (
        identity is None
        or other is None
        or other.merge is None
        or target.templates is None
        or identity.erased
    ):
        raise identity_unknown("to separate from: it was purged or erased")
    merge = other.merge
    if identity.merge:
        # The identity that the target was merged into has copies of the source's templates as the target's.
        detail = f"{identity.user_id} was merged into {identity.merge.into} since: undo that merge first"
        raise ContractError(MERGE_IMPOSSIBLE, detail)
    templates = _without_copies(target.templates, other.user_id, rules)
    sites_unchanged = identity.sites == _joined_sites(merge.sites_before, other.sites)
    consent_unchanged = identity.consent == _joined_consent(merge.consent_before, other.consent)
    after = replace(
        identity,
        version=version,
        sites=merge.sites_before if sites_unchanged else identity.sites,
        holdings=holdings(identity.user_id, templates),
        external=tuple(key for key in identity.external if key not in merge.external),
        consent=merge.consent_before if consent_unchanged else identity.consent,
        updated_at=now,
    )
    revived = replace(
        other,
        version=version + 1,
        created_version=version + 1,
        deleted=False,
        deleted_at=None,
        updated_at=now,
        external=tuple(key for key in merge.external if key in identity.external),
        merge=None,
    )
    return IdentityRecord(after, templates), IdentityRecord(revived, source.templates)


def _with_copies(
    own: tuple[Template, ...], source: str, others: tuple[Template, ...], rules: Rules
) -> tuple[Template, ...]:
    """Return the target's templates with copies of the source's.

    Own templates beyond the limit are superseded.
    """
    present = {(template.space, template.vector) for template in own if template.superseded_by is None}
    copies = [
        replace(template, template_id=uuid.uuid4().hex, merged_from=source)
        for template in others
        if template.superseded_by is None and (template.space, template.vector) not in present
    ]
    surplus = _surplus_ids((*own, *copies), {template.space for template in copies}, rules)
    kept = [
        replace(template, superseded_by=source) if template.template_id in surplus else template
        for template in own
    ]
    return (*kept, *(template for template in copies if template.template_id not in surplus))


def _without_copies(templates: tuple[Template, ...], source: str, rules: Rules) -> tuple[Template, ...]:
    """Return the target's templates without the source's.

    The templates that these superseded count again.
    """
    own = [
        replace(template, superseded_by=None) if template.superseded_by == source else template
        for template in templates
        if template.merged_from != source
    ]
    surplus = _surplus_ids(own, {template.space for template in own}, rules)
    return tuple(template for template in own if template.template_id not in surplus)


def _surplus_ids(
    templates: list[Template] | tuple[Template, ...], spaces: set[str], rules: Rules
) -> set[str]:
    return {one.template_id for space in spaces for one in surplus_templates(templates, space, rules)}


def _joined_sites(sites: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    joined = {*sites, *others}
    return (EVERY_SITE,) if EVERY_SITE in joined else tuple(sorted(joined))


def _joined_consent(consent: Mapping[str, bool], other: Mapping[str, bool]) -> dict[str, bool]:
    return {
        modality: consent.get(modality, True) and other.get(modality, True)
        for modality in {**consent, **other}
    }


def _identity_in(record: IdentityRecord, user_id: str) -> Identity:
    if record.identity is None:
        raise identity_unknown(user_id)
    return record.identity
