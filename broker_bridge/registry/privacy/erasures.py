"""Erase a person and keep a receipt.

Only a tombstone stays. The receipt has the confirmation of each device.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.detected_persons.queries import DetectedPersonQueries
from broker_bridge.registry.detected_persons.removal import SETTLE_TIME
from broker_bridge.registry.devices.devices import DeviceRegistry
from broker_bridge.registry.devices.model import AppliedVersion
from broker_bridge.registry.events.events import EventStore
from broker_bridge.registry.events.pseudonyms import Pseudonyms, new_pseudonym
from broker_bridge.registry.identities import rules
from broker_bridge.registry.identities.model import EVERY_SITE, PERSON_MERGED, Identity, IdentityRecord
from broker_bridge.registry.identities.rules import identity_unknown
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first
from broker_bridge.registry.mongo.versions import Versions

from .erasure import Erasure, ErasureStep, ErasureSubject, from_document, required_proofs, to_document
from .merge_history import MergeHistory
from .sweep import ErasureSweep

ERASURE_UNKNOWN = "erasure-unknown"


class Erasures:
    """Collection `erasures`: one document per erasure.

    Once its sweeps are done, the document has no id or name of the erased person.
    """

    def __init__(
        self,
        mongo: Mongo,
        *,
        store: IdentityStore,
        versions: Versions,
        devices: DeviceRegistry,
        events: EventStore,
        audit: Audit,
        pseudonyms: Pseudonyms,
        sweep: ErasureSweep,
        detected: DetectedPersonQueries,
    ) -> None:
        self._erasures = mongo.db.erasures
        self._merge_history = MergeHistory(mongo, store)
        self._store = store
        self._versions = versions
        self._devices = devices
        self._events = events
        self._audit = audit
        self._pseudonyms = pseudonyms
        self._sweep = sweep
        self._detected = detected

    async def erase(self, user_id: str, *, by: str, now: datetime) -> Erasure:
        """Erase an identity, live or deleted, with all identities merged into it.

        It is one transaction; `continue_erasure` does the rest. An identity that is erased already keeps its
        erasure. Of a purged identity the remains, events and audit entries, are erased. Raises
        ContractError(`person-unknown`, `person-merged`).
        """
        now = to_milliseconds(now)
        await self._pseudonyms.ensure_key()

        async def work(session: Any) -> Erasure:
            identities = await self._identities_to_erase(session, user_id)
            if not identities and await self._has_remains(user_id):
                return await self._begin(session, [user_id], {}, {}, by=by, now=now)
            if not identities or identities[user_id].erased:
                earlier = await self.erasures_of([user_id])
                if earlier:
                    return earlier[0]
            if not identities:
                raise identity_unknown(user_id)
            first = await self._versions.take(session, len(identities))
            before = await self._store.read_records(session, list(identities))
            after = {
                identity.user_id: IdentityRecord(rules.make_erased_tombstone(identity, version, now))
                for version, identity in enumerate(identities.values(), start=first)
            }
            await self._store.write(session, before, after)
            user_ids = {*identities, *await self._merge_history.purged_merges(list(identities))}
            return await self._begin(session, sorted(user_ids), before, after, by=by, now=now)

        erasure = await self._store.transact(work)
        self._pseudonyms.invalidate()
        return erasure

    async def _has_remains(self, user_id: str) -> bool:
        """Return whether anything is stored about a purged identity."""
        return (
            await self._events.exist_for([user_id])
            or await self._detected.is_linked_to(user_id)
            or await self._merge_history.has_entries(user_id)
        )

    async def _identities_to_erase(self, session: Any, user_id: str) -> dict[str, Identity]:
        """Return the identity and those merged into it.

        Returns nothing if there is no such identity.
        """
        identities = await self._store.find_by_id(session, [user_id])
        if not identities:
            return {}
        merge = identities[user_id].merge
        if merge:
            raise ContractError(PERSON_MERGED, f"{user_id} was merged into {merge.into}: erase {merge.into}")
        return identities | await self._store.merged_into(session, user_id)

    async def _begin(
        self,
        session: Any,
        user_ids: Sequence[str],
        before: Mapping[str, IdentityRecord],
        after: Mapping[str, IdentityRecord],
        *,
        by: str,
        now: datetime,
    ) -> Erasure:
        """Write the erasure and its audit entry."""
        tombstones = [record.identity for record in after.values() if record.identity]
        identities = [record.identity for record in before.values() if record.identity]
        template_count = sum(len(record.templates or ()) for record in before.values())
        erasure = Erasure(
            erasure_id=secrets.token_hex(12),
            pseudonym=new_pseudonym(),
            requested_by=by,
            requested_at=now,
            version=max((tombstone.version for tombstone in tombstones), default=0),
            devices=required_proofs(await self._devices_of(tombstones), tombstones),
            steps={
                "people": ErasureStep(len(tombstones), now),
                "templates": ErasureStep(template_count, now),
            },
            subject=ErasureSubject.of(user_ids, identities),
        )
        marks = await self._pseudonyms.marks(user_ids)
        await self._erasures.insert_one(to_document(erasure, list(marks.values())), session=session)
        await self._pseudonyms.count_erasure(session)
        details = {"erasure_id": erasure.erasure_id, "people": len(tombstones)}
        entry = AuditEntry(who=by, what="person.erased", subject=erasure.pseudonym, at=now, after=details)
        await self._audit.record(entry, session)
        return erasure

    async def _devices_of(self, tombstones: Sequence[Identity]) -> list[AppliedVersion]:
        sites = {site for tombstone in tombstones for site in tombstone.synced_sites}
        history = await self._versions.read()
        return await self._devices.holders_of(None if EVERY_SITE in sites else sorted(sites), history.epoch)

    # Steps after the transaction

    async def continue_erasure(self, erasure_id: str, now: datetime) -> Erasure:
        """Sweep again and record what devices have confirmed.

        Sweeps repeat until SETTLE_TIME has passed, since messages may still arrive. Raises
        ContractError(`erasure-unknown`).
        """
        await self._sweep_subject(await self._get(erasure_id), now)
        return await self.note_confirmations(erasure_id, now)

    async def _sweep_subject(self, erasure: Erasure, now: datetime) -> None:
        subject = erasure.subject
        if subject is None:
            return
        key = {"_id": erasure.erasure_id}
        async for name, count in self._sweep.steps(subject, erasure.pseudonym, erasure.requested_at, now):
            done: Document = {"$inc": {f"steps.{name}.count": count}}
            if count or name not in erasure.steps:
                done["$set"] = {f"steps.{name}.at": now}
            await self._erasures.update_one(key, done)
        settled = now - erasure.requested_at >= SETTLE_TIME
        # Names and keys are deleted at once: the dead letters with them are gone.
        forgotten: Document = {"$unset": {"subject": 1}} if settled else {"$set": {"subject.texts": []}}
        await self._erasures.update_one(key | {"subject": {"$exists": True}}, forgotten)

    async def note_confirmations(self, erasure_id: str, now: datetime) -> Erasure:
        """Record which devices have confirmed since, and whether all have.

        Raises ContractError.
        """
        applied = await self._devices.applied_versions()
        return await self._record_confirmations(erasure_id, now, applied)

    async def _record_confirmations(
        self, erasure_id: str, now: datetime, applied: Sequence[AppliedVersion]
    ) -> Erasure:
        erasure = await self._get(erasure_id)
        if erasure.completed_at:
            return erasure
        changes = await self._confirmation_update(erasure, now, applied)
        if changes:
            found = await self._erasures.find_one_and_update(
                {"_id": erasure_id}, changes, return_document=ReturnDocument.AFTER
            )
            erasure = from_document(found)
        if not erasure.is_done:
            return erasure
        found = await self._erasures.find_one_and_update(
            {"_id": erasure_id, "completed_at": None},
            {"$set": {"completed_at": now}},
            return_document=ReturnDocument.AFTER,
        )
        return from_document(found) if found else await self._get(erasure_id)

    async def _confirmation_update(
        self, erasure: Erasure, now: datetime, applied: Sequence[AppliedVersion]
    ) -> Document:
        """Return the update that records what the devices of an erasure have confirmed."""
        history = await self._versions.read()
        registered = {one.device_id: one for one in applied}
        recorded: Document = {}
        removed: Document = {}
        for position, device in enumerate(erasure.devices):
            applied_version = registered.get(device.device_id)
            if device.state == "waiting" and applied_version is None:
                recorded[f"devices.{position}.gone_at"] = now
            elif device.state == "gone" and applied_version is not None:
                removed[f"devices.{position}.gone_at"] = 1
            if (
                device.confirmed_at is None
                and applied_version
                and device.is_fulfilled_by(applied_version, history.epoch)
            ):
                recorded[f"devices.{position}.confirmed_at"] = applied_version.at or now
        # $min: the earliest of several programs that record it counts.
        return ({"$min": recorded} if recorded else {}) | ({"$unset": removed} if removed else {})

    async def continue_open_erasures(self, now: datetime) -> int:
        """Continue each open erasure; return how many of them are complete now."""
        opened = [from_document(found) async for found in self._erasures.find({"completed_at": None})]
        applied = await self._devices.applied_versions() if opened else []
        completed = 0
        for erasure in opened:
            await self._sweep_subject(erasure, now)
            completed += (
                await self._record_confirmations(erasure.erasure_id, now, applied)
            ).state == "complete"
        return completed

    # Queries

    async def _get(self, erasure_id: str) -> Erasure:
        found = await self._erasures.find_one({"_id": erasure_id})
        if found is None:
            raise ContractError(ERASURE_UNKNOWN, f"there is no erasure {erasure_id}")
        return from_document(found)

    async def erasures_of(self, user_ids: Sequence[str]) -> list[Erasure]:
        """Return the erasures of these user ids, newest first."""
        marks = await self._pseudonyms.marks(user_ids)
        cursor = self._erasures.find({"marks": {"$in": list(marks.values())}}).sort("requested_at", -1)
        return [from_document(found) async for found in cursor]

    async def page(self, *, before: tuple[datetime, str] | None = None, limit: int = 100) -> list[Erasure]:
        """Return up to `limit` erasures, newest first.

        They come after the cursor `before` of time and id.
        """
        erasures = newest_first(self._erasures, {}, "requested_at", before=before, limit=limit)
        return [from_document(found) async for found in erasures]
