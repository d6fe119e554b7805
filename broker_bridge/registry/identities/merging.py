"""Two people who turn out to be one: a merge, and its undo until the tombstone is purged."""

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
from .rules import Rules, beyond_cap, check_size, unknown
from .store import IdentityStore

MERGE_IMPOSSIBLE = "merge-impossible"


class IdentityMerges:
    """Merges people and takes merges back."""

    def __init__(self, store: IdentityStore, versions: Versions, audit: Audit, rules: Rules) -> None:
        self._store = store
        self._versions = versions
        self._audit = audit
        self._rules = rules

    async def merge(self, source: str, into: str, *, by: str = SYSTEM) -> Identity:
        """Let `source` go into `into`, who is returned; see `merged`. Raises ContractError."""
        if source == into:
            raise ContractError(MERGE_IMPOSSIBLE, f"{source} cannot go into themself")

        async def work(session: Any) -> Identity:
            first = await self._versions.take(session, 2)
            before = await self._store.read_records(session, [source, into])
            now = to_milliseconds(utc_now())
            target, tombstone = merged(before[into], before[source], first, now, self._rules)
            # The key of another system is one person's: it has to be free before it is given.
            await self._store.write(
                session, before, {source: IdentityRecord(tombstone, before[source].templates)}
            )
            await self._store.write(session, before, {into: target})
            entry = AuditEntry(who=by, what="person.merged", subject=source, at=now, after={"into": into})
            await self._audit.record(entry, session)
            return _somebody(target, into)

        return await self._store.transact(work)

    async def undo(self, source: str, *, by: str = SYSTEM) -> Identity:
        """Take back the merge by which `source` went; they are returned. Raises ContractError."""

        async def work(session: Any) -> Identity:
            first = await self._versions.take(session, 2)
            before = await self._store.read_records(session, [source])
            gone = before[source].identity
            if gone is None or gone.merge is None:
                raise ContractError(MERGE_IMPOSSIBLE, f"{source} has gone into nobody: nothing to undo")
            merge = gone.merge
            before |= await self._store.read_records(session, [merge.into])
            now = to_milliseconds(utc_now())
            target, revived = parted(before[merge.into], before[source], first, now, self._rules)
            await self._store.write(session, before, {merge.into: target})
            await self._store.write(session, before, {source: revived})
            said = {"from": merge.into}
            entry = AuditEntry(who=by, what="person.unmerged", subject=source, at=now, after=said)
            await self._audit.record(entry, session)
            return _somebody(revived, source)

        return await self._store.transact(work)

    async def merged_user_ids(self, user_id: str) -> list[str]:
        """Whoever went into a person, also by way of others."""
        return sorted(await self._store.merged_into(None, user_id))


def merged(
    target: IdentityRecord, source: IdentityRecord, version: int, now: datetime, rules: Rules
) -> tuple[IdentityRecord, Identity]:
    """The target with what the source had, and the source's tombstone, at `version` + 1 and `version`.

    Templates of the source are copied; own ones of the target that are then beyond the cap are parked. Both
    sides' sites count, and a modality is sent only if neither refuses it. Name and flag stay the target's.
    """
    person, other = target.live, source.live
    if person is None or other is None or target.templates is None or source.templates is None:
        raise unknown("to merge: both must be there and not be deleted")
    templates = _with_copies(target.templates, other.user_id, source.templates, rules)
    sites = _together(person.sites, other.sites)
    after = replace(
        person,
        version=version + 1,
        sites=sites,
        synced_sites=tuple(sorted({*person.synced_sites, *sites})),
        holdings=holdings(person.user_id, templates),
        external=(*person.external, *other.external),
        consent=_agreed(person.consent, other.consent),
        updated_at=now,
    )
    check_size(after, {one.space: len(one.vector) // 4 for one in templates})
    tombstone = replace(
        other,
        version=version,
        deleted=True,
        deleted_at=now,
        updated_at=now,
        external=(),
        merge=IdentityMerge(person.user_id, other.external, person.sites, person.consent),
    )
    return IdentityRecord(after, templates), tombstone


def parted(
    target: IdentityRecord, source: IdentityRecord, version: int, now: datetime, rules: Rules
) -> tuple[IdentityRecord, IdentityRecord]:
    """Target and source as before their merge, at `version` and `version` + 1.

    What was changed about the target since stays changed. The target may be a tombstone by now, but not that
    of a merge.
    """
    person, other = target.identity, source.identity
    if person is None or other is None or other.merge is None or target.templates is None or person.erased:
        raise unknown("to part from: they are purged or erased")
    merge = other.merge
    if person.merge:
        # Whoever they went into has copies of the source's templates too, as theirs.
        detail = f"{person.user_id} went into {person.merge.into} since: take that back first"
        raise ContractError(MERGE_IMPOSSIBLE, detail)
    own = [
        replace(one, superseded_by=None) if one.superseded_by == other.user_id else one
        for one in target.templates
        if one.merged_from != other.user_id
    ]
    dropped = {
        one.template_id for space in {one.space for one in own} for one in beyond_cap(own, space, rules)
    }
    templates = tuple(one for one in own if one.template_id not in dropped)
    unchanged = person.sites == _together(merge.sites_before, other.sites)
    agreed = person.consent == _agreed(merge.consent_before, other.consent)
    after = replace(
        person,
        version=version,
        sites=merge.sites_before if unchanged else person.sites,
        holdings=holdings(person.user_id, templates),
        external=tuple(key for key in person.external if key not in merge.external),
        consent=merge.consent_before if agreed else person.consent,
        updated_at=now,
    )
    revived = replace(
        other,
        version=version + 1,
        created_version=version + 1,
        deleted=False,
        deleted_at=None,
        updated_at=now,
        external=tuple(key for key in merge.external if key in person.external),
        merge=None,
    )
    return IdentityRecord(after, templates), IdentityRecord(revived, source.templates)


def _with_copies(
    own: tuple[Template, ...], source: str, theirs: tuple[Template, ...], rules: Rules
) -> tuple[Template, ...]:
    present = {(one.space, one.vector) for one in own if one.superseded_by is None}
    copies = [
        replace(one, template_id=uuid.uuid4().hex, merged_from=source)
        for one in theirs
        if one.superseded_by is None and (one.space, one.vector) not in present
    ]
    pool = [*own, *copies]
    too_many = {
        one.template_id for space in {one.space for one in copies} for one in beyond_cap(pool, space, rules)
    }
    kept = [replace(one, superseded_by=source) if one.template_id in too_many else one for one in own]
    return (*kept, *(one for one in copies if one.template_id not in too_many))


def _together(sites: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    every = {*sites, *others}
    return (EVERY_SITE,) if EVERY_SITE in every else tuple(sorted(every))


def _agreed(consent: Mapping[str, bool], other: Mapping[str, bool]) -> dict[str, bool]:
    return {
        modality: consent.get(modality, True) and other.get(modality, True)
        for modality in {**consent, **other}
    }


def _somebody(held: IdentityRecord, user_id: str) -> Identity:
    if held.identity is None:
        raise unknown(user_id)
    return held.identity
