"""Change identities.

Every change takes the next version in the transaction that writes it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.mongo.versions import History, Versions
from broker_bridge.registry.spaces import SpaceRegistry

from . import rules
from .audit_entries import to_audit_entry
from .batch import ChangeBatch, possible_user_ids, user_ids_needing_templates
from .model import (
    PERSON_EXISTS,
    PERSON_MERGED,
    SYSTEM,
    DeleteIdentity,
    EnrollIdentity,
    ExternalKey,
    Identity,
    IdentityChange,
    IdentityRecord,
    Template,
)
from .outcome import ChangeOutcome, NothingChanged
from .rules import Rules, identity_unknown
from .store import IdentityStore

BULK = 500
"""Changes per transaction of a bulk write: past a few hundred a transaction only grows."""


class Identities:
    """Identities by user id."""

    def __init__(
        self, store: IdentityStore, versions: Versions, spaces: SpaceRegistry, audit: Audit, settings: Rules
    ) -> None:
        self._store = store
        self._versions = versions
        self._spaces = spaces
        self._audit = audit
        self._rules = settings

    # Changes

    async def enroll(self, change: EnrollIdentity) -> Identity:
        """Apply one enrollment and return the identity. Raises ContractError."""
        (outcome,) = await self.apply([change])
        return outcome.result()

    async def enroll_many(self, changes: Sequence[EnrollIdentity]) -> list[Identity]:
        """Apply enrollments; raise the first ContractError after the others were applied."""
        return [outcome.result() for outcome in await self.apply(changes)]

    async def apply(self, changes: Sequence[IdentityChange]) -> list[ChangeOutcome]:
        """Apply `changes` in their order and return an outcome for each.

        A transaction has 500 of them. A refused change does not stop the others. A change without effect
        takes no version.
        """
        outcomes: list[ChangeOutcome] = []
        for start in range(0, len(changes), BULK):
            chunk = changes[start : start + BULK]

            async def work(session: Any, chunk: Sequence[IdentityChange] = chunk) -> list[ChangeOutcome]:
                first = await self._versions.take(session, len(chunk))
                dimensions = await self._spaces.dimensions(session)
                applied = await self._apply_chunk(session, chunk, first, dimensions)
                if not any(outcome.changed for outcome in applied):
                    raise NothingChanged(applied)
                return applied

            try:
                outcomes += await self._store.transact(work)
            except NothingChanged as nothing:
                outcomes += nothing.outcomes
        return outcomes

    async def create_at(
        self,
        change: EnrollIdentity,
        history: History,
        record: Callable[[Any, Identity], Awaitable[None]],
    ) -> Identity | None:
        """Apply an enrollment if the registry has not changed since `history`.

        Returns the identity. `record` writes to the same transaction. Returns None, with nothing written, if
        the registry has changed, so that a decision made at `history` may no longer hold, or if an identity
        that must be new exists. Raises ContractError.
        """

        async def work(session: Any) -> Identity | None:
            version = await self._versions.take_after(session, history)
            if version is None:
                return None
            dimensions = await self._spaces.dimensions(session)
            (outcome,) = await self._apply_chunk(session, [change], version, dimensions)
            identity = outcome.result()
            await record(session, identity)
            return identity

        try:
            return await self._store.transact(work)
        except ContractError as error:
            if error.code != PERSON_EXISTS:
                raise
            return None

    async def delete(self, user_id: str, *, by: str = SYSTEM) -> Identity:
        """Soft-delete an identity and return its tombstone.

        All its synced sites receive the tombstone.
        """
        (outcome,) = await self.apply([DeleteIdentity(user_id, by=by)])
        return outcome.result()

    async def remove_modality(self, user_id: str, modality: str, *, by: str = SYSTEM) -> Identity:
        """Remove an identity's templates of one modality; the identity stays."""

        def change(before: IdentityRecord, version: int, now: datetime) -> IdentityRecord:
            return rules.remove_modality(before, modality, version, now)

        return await self._change_one(user_id, "person.modality-removed", by, change, {"modality": modality})

    async def restore(self, user_id: str, *, by: str = SYSTEM) -> Identity:
        """Bring back a soft-deleted identity.

        Raises ContractError(`person-unknown`, `person-merged`).
        """

        def change(before: IdentityRecord, version: int, now: datetime) -> IdentityRecord:
            tombstone = before.identity
            if tombstone is None or not tombstone.deleted or tombstone.erased:
                raise tombstone_unknown(user_id)
            if tombstone.merge:
                detail = f"{user_id} was merged into {tombstone.merge.into}: undo the merge"
                raise ContractError(PERSON_MERGED, detail)
            return IdentityRecord(rules.restore_tombstone(tombstone, version, now), before.templates)

        return await self._change_one(user_id, "person.restored", by, change)

    async def _change_one(
        self,
        user_id: str,
        what: str,
        by: str,
        change: Callable[[IdentityRecord, int, datetime], IdentityRecord],
        details: Document | None = None,
    ) -> Identity:
        async def work(session: Any) -> Identity:
            version = await self._versions.take(session)
            before = await self._store.read_records(session, [user_id])
            now = to_milliseconds(utc_now())
            after = change(before[user_id], version, now)
            assert after.identity is not None  # noqa: S101  # only an identity can be changed
            await self._store.write(session, before, {user_id: after})
            entry = AuditEntry(who=by, what=what, subject=user_id, at=now, after=details)
            await self._audit.record(entry, session)
            return after.identity

        return await self._store.transact(work)

    async def _apply_chunk(
        self, session: Any, changes: Sequence[IdentityChange], first: int, dimensions: Mapping[str, int]
    ) -> list[ChangeOutcome]:
        """Apply `changes` from version `first` on and write the result.

        The audit entries are written in the same transaction.
        """
        now = to_milliseconds(utc_now())
        user_id_by_key, before = await self._read_records(session, changes)
        batch = ChangeBatch(before, user_id_by_key, dimensions, self._rules)
        outcomes = [batch.apply(change, version, now) for version, change in enumerate(changes, start=first)]
        await self._store.write(session, before, batch.records)
        applied = [one for one in outcomes if one.identity is not None and one.changed]
        await self._audit.record_all([to_audit_entry(outcome, now) for outcome in applied], session)
        return outcomes

    async def _read_records(
        self, session: Any, changes: Sequence[IdentityChange]
    ) -> tuple[dict[str, str], dict[str, IdentityRecord]]:
        """Return user ids by external key, and the records that `changes` concern.

        Templates are read only where a change may concern them.
        """
        keys = [change.external.text for change in changes if change.external]
        holders = await self._store.find_by_external_key(session, keys) if keys else {}
        user_id_by_key = {key: identity.user_id for key, identity in holders.items()}
        user_ids = possible_user_ids(changes, user_id_by_key)
        identities = {identity.user_id: identity for identity in holders.values()}
        missing = set().union(*user_ids) - set(identities)
        identities |= await self._store.find_by_id(session, sorted(missing))
        needed = user_ids_needing_templates(changes, user_ids, identities)
        templates = await self._store.templates_of(session, needed)
        read = set(needed)
        return user_id_by_key, {
            user_id: IdentityRecord(identity, tuple(templates.get(user_id, ())) if user_id in read else None)
            for user_id, identity in identities.items()
        }

    # Queries

    async def get(self, user_id: str) -> Identity:
        """Return the identity, also a soft-deleted one.

        Raises ContractError(`person-unknown`).
        """
        found = (await self._store.find_by_id(None, [user_id])).get(user_id)
        if found is None:
            raise identity_unknown(user_id)
        return found

    async def templates_of(self, user_ids: Sequence[str]) -> dict[str, list[Template]]:
        """Return templates by user id, oldest first, without superseded ones."""
        templates = await self._store.templates_of(None, user_ids)
        return {
            user_id: [template for template in found if template.superseded_by is None]
            for user_id, found in templates.items()
        }

    async def page(
        self, *, after: str = "", limit: int = 100, deleted: Literal["only"] | bool = False
    ) -> list[Identity]:
        """Return up to `limit` identities past the user id `after`, by user id.

        `deleted` adds tombstones, or with "only" returns nothing else.
        """
        query: Document = {"_id": {"$gt": after}}
        if deleted is not True:
            query["deleted"] = deleted == "only"
        return await self._store.page(query, limit)

    async def page_external(
        self, source_system: str | None = None, *, first: str = "", limit: int = 100
    ) -> list[Identity]:
        """Return up to `limit` identities with a key of another system.

        They begin at the user id `first`. `source_system` restricts them to keys of that system.
        """
        query: Document = {"_id": {"$gte": first}, "deleted": False, "external": {"$exists": True}}
        if source_system is not None:
            prefix = ExternalKey(source_system, "").text
            query["external"] = {"$regex": f"^{re.escape(prefix)}"}
        return await self._store.page(query, limit)


def tombstone_unknown(user_id: str) -> ContractError:
    return ContractError("person-unknown", f"there is no deleted person {user_id} to restore")
