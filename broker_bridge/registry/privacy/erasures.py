"""Erasing a person: nothing is kept but a tombstone, and a receipt says which device confirmed when."""

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
from broker_bridge.registry.events.pseudonyms import Pseudonyms
from broker_bridge.registry.identities import rules
from broker_bridge.registry.identities.model import EVERY_SITE, PERSON_MERGED, Identity, IdentityRecord
from broker_bridge.registry.identities.rules import identity_unknown
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first
from broker_bridge.registry.mongo.versions import Versions

from .erasure import Erasure, ErasureStep, ErasureSubject, from_document, proofs_wanted, to_document
from .sweep import ErasureSweep

ERASURE_UNKNOWN = "erasure-unknown"


class Erasures:
    """Collection `erasures`: one document per erasure, which names nobody once its sweeps are done."""

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
        self._audit_entries = mongo.db.audit
        self._store = store
        self._versions = versions
        self._devices = devices
        self._events = events
        self._audit = audit
        self._pseudonyms = pseudonyms
        self._sweep = sweep
        self._detected = detected

    async def erase(self, user_id: str, *, by: str, now: datetime) -> Erasure:
        """Erase a person, live or deleted, and whoever went into them; `go_on` does the rest.

        It is one transaction. Who is erased already keeps the erasure there is. Of who was purged only what
        is left behind, events and audit, is erased. Raises ContractError(`person-unknown`, `person-merged`).
        """
        now = to_milliseconds(now)
        await self._pseudonyms.ensure_key()

        async def work(session: Any) -> Erasure:
            people = await self._concerned(session, user_id)
            if not people and await self._is_left(user_id):
                return await self._begin(session, [user_id], {}, {}, by=by, now=now)
            if not people or people[user_id].erased:
                earlier = await self.about([user_id])
                if earlier:
                    return earlier[0]
            if not people:
                raise identity_unknown(user_id)
            first = await self._versions.take(session, len(people))
            before = await self._store.read_records(session, list(people))
            after = {
                person.user_id: IdentityRecord(rules.make_erased_tombstone(person, version, now))
                for version, person in enumerate(people.values(), start=first)
            }
            await self._store.write(session, before, after)
            user_ids = {*people, *await self._purged_into(list(people))}
            return await self._begin(session, sorted(user_ids), before, after, by=by, now=now)

        erasure = await self._store.transact(work)
        self._pseudonyms.invalidate()
        return erasure

    async def _is_left(self, user_id: str) -> bool:
        """Whether there is anything of somebody who is no more."""
        about = {"subject": user_id, "what": {"$regex": "^person[.]"}}
        return (
            await self._events.exist_for([user_id])
            or await self._detected.is_linked_to(user_id)
            or bool(await self._audit_entries.find_one(about))
        )

    async def _concerned(self, session: Any, user_id: str) -> dict[str, Identity]:
        """The person and whoever went into them; nobody if there is no such person."""
        people = await self._store.find_by_id(session, [user_id])
        if not people:
            return {}
        merge = people[user_id].merge
        if merge:
            raise ContractError(PERSON_MERGED, f"{user_id} went into {merge.into}: erase {merge.into}")
        return people | await self._store.merged_into(session, user_id)

    async def _purged_into(self, user_ids: Sequence[str]) -> set[str]:
        """Whoever went into one of `user_ids` and was purged since: what they have left is this person's."""
        found: set[str] = set()
        targets = list(user_ids)
        while targets:
            about = [{"after.into": {"$in": targets}}, {"after.from": {"$in": targets}}]
            query = {"what": {"$in": ["person.merged", "person.unmerged"]}, "$or": about}
            last = {
                entry["subject"]: entry["what"]
                async for entry in self._audit_entries.find(query, {"subject": 1, "what": 1}).sort("at", 1)
            }
            merged = [key for key, what in last.items() if what == "person.merged" and key not in found]
            there = await self._store.find_by_id(None, merged)
            targets = [key for key in merged if key not in there]
            found |= set(targets)
        return found

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
        tombstones = [held.identity for held in after.values() if held.identity]
        people = [held.identity for held in before.values() if held.identity]
        reach = {site for person in tombstones for site in person.synced_sites}
        erasure = Erasure(
            erasure_id=secrets.token_hex(12),
            pseudonym=f"ERASED-{secrets.token_hex(6)}",
            requested_by=by,
            requested_at=now,
            version=max((person.version for person in tombstones), default=0),
            devices=proofs_wanted(await self._devices_of(reach), tombstones),
            steps={
                "people": ErasureStep(len(tombstones), now),
                "templates": ErasureStep(sum(len(held.templates or ()) for held in before.values()), now),
            },
            subject=ErasureSubject.of(user_ids, people),
        )
        marks = await self._pseudonyms.marks(user_ids)
        await self._erasures.insert_one(to_document(erasure, list(marks.values())), session=session)
        await self._pseudonyms.count_erasure(session)
        said = {"erasure_id": erasure.erasure_id, "people": len(tombstones)}
        entry = AuditEntry(who=by, what="person.erased", subject=erasure.pseudonym, at=now, after=said)
        await self._audit.record(entry, session)
        return erasure

    async def _devices_of(self, reach: set[str]) -> list[AppliedVersion]:
        return await self._devices.applied_versions(None if EVERY_SITE in reach else sorted(reach))

    # What is done after the transaction

    async def go_on(self, erasure_id: str, now: datetime) -> Erasure:
        """Do what is left of an erasure: sweep, until all that was on its way has come, and note which
        devices have confirmed. Raises ContractError(`erasure-unknown`)."""
        await self._swept(await self._read(erasure_id), now)
        return await self.note_confirmations(erasure_id, now)

    async def _swept(self, erasure: Erasure, now: datetime) -> None:
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
        # Names and keys are forgotten at once: dead letters that held them are gone.
        forgotten: Document = {"$unset": {"subject": 1}} if settled else {"$set": {"subject.texts": []}}
        await self._erasures.update_one(key | {"subject": {"$exists": True}}, forgotten)

    async def note_confirmations(self, erasure_id: str, now: datetime) -> Erasure:
        """Note which devices have confirmed since, and whether that is all. Raises ContractError."""
        return await self._confirmed(erasure_id, now, await self._devices.applied_versions())

    async def _confirmed(self, erasure_id: str, now: datetime, applied: Sequence[AppliedVersion]) -> Erasure:
        erasure = await self._read(erasure_id)
        if erasure.completed_at:
            return erasure
        changes = await self._confirmations(erasure, now, applied)
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
        return from_document(found) if found else await self._read(erasure_id)

    async def _confirmations(
        self, erasure: Erasure, now: datetime, applied: Sequence[AppliedVersion]
    ) -> Document:
        """The update that notes what devices of an erasure have said."""
        history = await self._versions.read()
        registered = {one.device_id: one for one in applied}
        noted: Document = {}
        back: Document = {}
        for place, device in enumerate(erasure.devices):
            said = registered.get(device.device_id)
            if device.state == "waiting" and said is None:
                noted[f"devices.{place}.gone_at"] = now
            elif device.state == "gone" and said is not None:
                back[f"devices.{place}.gone_at"] = 1
            if device.confirmed_at is None and said and said.confirms(history.epoch, device.version):
                noted[f"devices.{place}.confirmed_at"] = said.at or now
        # $min: whoever notes it first is right.
        return ({"$min": noted} if noted else {}) | ({"$unset": back} if back else {})

    async def go_on_with_all(self, now: datetime) -> int:
        """Go on with each erasure that is open; how many of them are complete now."""
        opened = [from_document(found) async for found in self._erasures.find({"completed_at": None})]
        applied = await self._devices.applied_versions() if opened else []
        completed = 0
        for erasure in opened:
            await self._swept(erasure, now)
            completed += (await self._confirmed(erasure.erasure_id, now, applied)).state == "complete"
        return completed

    # Questions

    async def _read(self, erasure_id: str) -> Erasure:
        found = await self._erasures.find_one({"_id": erasure_id})
        if found is None:
            raise ContractError(ERASURE_UNKNOWN, f"there is no erasure {erasure_id}")
        return from_document(found)

    async def about(self, user_ids: Sequence[str]) -> list[Erasure]:
        """The erasures of people who had these user ids, newest first."""
        marks = await self._pseudonyms.marks(user_ids)
        cursor = self._erasures.find({"marks": {"$in": list(marks.values())}}).sort("requested_at", -1)
        return [from_document(found) async for found in cursor]

    async def page(self, *, before: tuple[datetime, str] | None = None, limit: int = 100) -> list[Erasure]:
        """Up to `limit` erasures, newest first, past the cursor of time and id."""
        erasures = newest_first(self._erasures, {}, "requested_at", before=before, limit=limit)
        return [from_document(found) async for found in erasures]
