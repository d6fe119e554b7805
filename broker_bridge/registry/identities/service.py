"""Orders about people: every change takes the next version in the transaction that writes it."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.embeddings import check_vector
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.mongo.versions import History, Versions
from broker_bridge.registry.spaces import SpaceRegistry

from . import audit_entries as person_audit
from . import rules
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
from .rules import Rules, unknown
from .store import IdentityStore

BULK = 500
"""Orders per transaction of a bulk write: past a few hundred a transaction only grows."""


class Identities:
    """People by user id."""

    def __init__(
        self, store: IdentityStore, versions: Versions, spaces: SpaceRegistry, audit: Audit, settings: Rules
    ) -> None:
        self._store = store
        self._versions = versions
        self._spaces = spaces
        self._audit = audit
        self._rules = settings

    # Orders

    async def enroll(self, order: EnrollIdentity) -> Identity:
        """Carry out one order; raises ContractError."""
        (outcome,) = await self.apply([order])
        return outcome.result()

    async def enroll_many(self, orders: Sequence[EnrollIdentity]) -> list[Identity]:
        """Carry out `orders`; raises the first ContractError once the others are carried out."""
        return [outcome.result() for outcome in await self.apply(orders)]

    async def apply(self, orders: Sequence[IdentityChange]) -> list[ChangeOutcome]:
        """Carry out `orders` in their order, a transaction per 500. One that may not be is its own outcome:
        the others are carried out. An order that changes nothing takes no version."""
        dimensions = await self._spaces.dimensions()
        outcomes: list[ChangeOutcome] = []
        for chunk in _chunks(orders):

            async def work(session: Any, chunk: Sequence[IdentityChange] = chunk) -> list[ChangeOutcome]:
                first = await self._versions.take(session, len(chunk))
                done = await self._carry_out(session, chunk, first, dimensions)
                if not any(outcome.changed for outcome in done):
                    raise NothingChanged(done)
                return done

            try:
                outcomes += await self._store.transact(work)
            except NothingChanged as nothing:
                outcomes += nothing.outcomes
        return outcomes

    async def create_at(
        self,
        order: EnrollIdentity,
        history: History,
        record: Callable[[Any, Identity], Awaitable[None]],
    ) -> Identity | None:
        """Carry out an order if the registry still stands at `history`; `record` writes to the same
        transaction. None, and nothing is written, if anything has changed since, so that what was found out
        at `history` still holds, or if whoever must be new is not. Raises ContractError."""
        dimensions = await self._spaces.dimensions()

        async def work(session: Any) -> Identity | None:
            version = await self._versions.take_after(session, history)
            if version is None:
                return None
            (outcome,) = await self._carry_out(session, [order], version, dimensions)
            person = outcome.result()
            await record(session, person)
            return person

        try:
            return await self._store.transact(work)
        except ContractError as error:
            if error.code != PERSON_EXISTS:
                raise
            return None

    async def delete(self, user_id: str, *, by: str = SYSTEM) -> Identity:
        """Soft-delete: the person becomes a tombstone that every site they ever were in hears of."""
        (outcome,) = await self.apply([DeleteIdentity(user_id, by=by)])
        return outcome.result()

    async def remove_modality(self, user_id: str, modality: str, *, by: str = SYSTEM) -> Identity:
        """Drop a person's templates of one modality; the person stays."""

        def change(before: IdentityRecord, version: int, now: datetime) -> IdentityRecord:
            return rules.without_modality(before, modality, version, now)

        return await self._change(user_id, "person.modality-removed", by, change, {"modality": modality})

    async def restore(self, user_id: str, *, by: str = SYSTEM) -> Identity:
        """Bring a soft-deleted person back as they were; raises ContractError(`person-unknown`,
        `person-merged`) where there is nobody to bring back."""

        def change(before: IdentityRecord, version: int, now: datetime) -> IdentityRecord:
            person = before.identity
            if person is None or not person.deleted or person.erased:
                raise unknown_tombstone(user_id)
            if person.merge:
                raise ContractError(PERSON_MERGED, f"{user_id} went into {person.merge.into}: undo the merge")
            return IdentityRecord(rules.restored(person, version, now), before.templates)

        return await self._change(user_id, "person.restored", by, change)

    async def _change(
        self,
        user_id: str,
        what: str,
        by: str,
        change: Callable[[IdentityRecord, int, datetime], IdentityRecord],
        said: Document | None = None,
    ) -> Identity:
        async def work(session: Any) -> Identity:
            version = await self._versions.take(session)
            before = await self._store.read_records(session, [user_id])
            now = to_milliseconds(utc_now())
            after = change(before[user_id], version, now)
            assert after.identity is not None  # noqa: S101  # what can be changed is somebody
            await self._store.write(session, before, {user_id: after})
            await self._audit.record(
                AuditEntry(who=by, what=what, subject=user_id, at=now, after=said), session
            )
            return after.identity

        return await self._store.transact(work)

    # Questions

    async def get(self, user_id: str) -> Identity:
        """The person, also a soft-deleted one; raises ContractError(`person-unknown`)."""
        found = (await self._store.find_by_id(None, [user_id])).get(user_id)
        if found is None:
            raise unknown(user_id)
        return found

    async def templates_of(self, user_ids: Sequence[str]) -> dict[str, list[Template]]:
        """Templates by user id, oldest first, without parked ones."""
        held = await self._store.templates_of(None, user_ids)
        return {key: [one for one in found if one.superseded_by is None] for key, found in held.items()}

    async def page(
        self, *, after: str = "", limit: int = 100, deleted: Literal["only"] | bool = False
    ) -> list[Identity]:
        """Up to `limit` people past the user id `after`, in order of it; the deleted as well, or only."""
        query: Document = {"_id": {"$gt": after}}
        if deleted is not True:
            query["deleted"] = deleted == "only"
        return await self._store.page(query, limit)

    async def page_external(
        self, source_system: str | None = None, *, first: str = "", limit: int = 100
    ) -> list[Identity]:
        """Up to `limit` people whom other systems (or this one) brought, with user ids from `first` on."""
        query: Document = {"_id": {"$gte": first}, "deleted": False, "external": {"$exists": True}}
        if source_system is not None:
            prefix = ExternalKey(source_system, "").text
            query["external"] = {"$regex": f"^{re.escape(prefix)}"}
        return await self._store.page(query, limit)

    # How it is done

    async def _carry_out(
        self, session: Any, orders: Sequence[IdentityChange], first: int, dimensions: Mapping[str, int]
    ) -> list[ChangeOutcome]:
        """Carry out `orders` from version `first` on, each on what those before it have left."""
        now = to_milliseconds(utc_now())
        before, by_key = await self._read(session, orders)
        after = dict(before)
        outcomes = []
        for version, order in enumerate(orders, start=first):
            user_id = by_key.get(order.external.text, order.user_id) if order.external else order.user_id
            known = after.get(user_id, IdentityRecord())
            try:
                held = self._carried_out(known, order, version, now, dimensions)
            except ContractError as error:
                outcomes.append(ChangeOutcome(order, error=error, version=version))
                continue
            after[user_id] = held
            if order.external:
                by_key[order.external.text] = user_id
            added = len(
                {t.template_id for t in held.templates or ()} - {t.template_id for t in known.templates or ()}
            )
            outcomes.append(
                ChangeOutcome(order, known.identity, held.identity, None, added, version, held.templates)
            )
        await self._store.write(session, before, after)
        entries = [
            person_audit.entry(one.change, one.before, one.identity, one.added, now)
            for one in outcomes
            if one.identity is not None and one.changed
        ]
        await self._audit.record_all(entries, session)
        return outcomes

    async def _read(
        self, session: Any, orders: Sequence[IdentityChange]
    ) -> tuple[dict[str, IdentityRecord], dict[str, str]]:
        """The people whom `orders` are about, with templates where they matter, and user ids by key."""
        keys = [order.external.text for order in orders if order.external]
        having = await self._store.find_by_external_key(session, keys) if keys else {}
        by_key = {key: person.user_id for key, person in having.items()}
        wanted = [order.user_id for order in orders if not (order.external and order.external.text in by_key)]
        people = {person.user_id: person for person in having.values()}
        people |= await self._store.find_by_id(session, [key for key in wanted if key not in people])
        touched, named = set(), set()
        holders = {key: {user_id} for key, user_id in by_key.items()}
        for order in orders:
            # A key that is nobody's yet may become that of any of those for whom it is ordered.
            about = holders.setdefault(order.external.text, set()) if order.external else set()
            if not (order.external and order.external.text in by_key):
                about.add(order.user_id)
            for user_id in about:
                known = people.get(user_id)
                # Whoever is named twice may be deleted and enrolled again.
                if known and (user_id in named or _concerns_templates(order, known)):
                    touched.add(user_id)
            named |= about
        templates = await self._store.templates_of(session, sorted(touched))
        return {
            user_id: IdentityRecord(person, tuple(templates.get(user_id, ())) if user_id in touched else None)
            for user_id, person in people.items()
        }, by_key

    def _carried_out(
        self,
        known: IdentityRecord,
        order: IdentityChange,
        version: int,
        now: datetime,
        dimensions: Mapping[str, int],
    ) -> IdentityRecord:
        if isinstance(order, DeleteIdentity):
            if known.live is None:
                raise unknown(order.user_id or (order.external.text if order.external else ""))
            return IdentityRecord(rules.removed(known.live, version, now), known.templates)
        for template in order.templates:
            if template.space not in dimensions:
                raise self._spaces.unknown(template.space, dimensions)
            check_vector(template.vector, dimensions[template.space])
        held = rules.enrolled(known, order, version, now, self._rules)
        if held.identity:
            rules.check_size(held.identity, dimensions)
        return held


def _concerns_templates(order: IdentityChange, known: Identity) -> bool:
    if isinstance(order, DeleteIdentity):
        return False
    return bool(order.templates or order.replace_modality or known.deleted)


def _chunks(orders: Sequence[IdentityChange]) -> Iterator[Sequence[IdentityChange]]:
    return (orders[start : start + BULK] for start in range(0, len(orders), BULK))


def unknown_tombstone(user_id: str) -> ContractError:
    return ContractError("person-unknown", f"there is no deleted person {user_id} to bring back")
