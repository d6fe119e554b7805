"""Edit detected persons: name, link to an identity, merge, delete.

The tracker sees each edit as one update in its change stream (see `edit_stream`). Name and link of a merge
group stand on its root.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.identities.merging import MERGE_IMPOSSIBLE
from broker_bridge.registry.identities.model import PERSON_MERGED
from broker_bridge.registry.identities.resolution import resolve_user_ids
from broker_bridge.registry.identities.rules import identity_unknown
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo

from .merge_groups import MergeGroup, MergeGroups
from .model import BY_FACE, DetectedPerson
from .removal import DetectedPersonRemoval


class DetectedPersonEdits:
    """Edits with an audit entry in the same transaction.

    Its subject is like `#42`, it has no name.
    """

    def __init__(
        self,
        mongo: Mongo,
        *,
        groups: MergeGroups,
        removal: DetectedPersonRemoval,
        identities: IdentityStore,
        audit: Audit,
    ) -> None:
        self._mongo = mongo
        self._persons = mongo.db.persons
        self._groups = groups
        self._removal = removal
        self._identities = identities
        self._audit = audit

    async def rename(self, global_id: int, name: str | None, *, by: str, now: datetime) -> None:
        """Set the name of a person, or with None remove all of its group.

        Raises ContractError.
        """

        async def work(session: Any, group: MergeGroup) -> AuditEntry | None:
            # A member keeps its own name for the time after an unmerge, unless names are removed.
            concerned = group.members if name is None else [group.root]
            if all(one.assigned_name == name for one in concerned):
                return None
            await self._set(session, group.root, {"assigned_name": name}, now)
            for one in group.merged if name is None else ():
                if one.assigned_name is not None:
                    await self._set(session, one, {"assigned_name": None}, now)
            return _entry("renamed", group.root, by, now, after={"fields": ["assigned_name"]})

        await self._change(global_id, work)

    async def link(self, global_id: int, user_id: str, *, by: str, now: datetime) -> None:
        """Link a person to an enrolled identity.

        Raises ContractError(`detected-person-unknown`, `person-unknown`, `person-merged`).
        """

        async def work(session: Any, group: MergeGroup) -> AuditEntry | None:
            await self._check_enrolled(session, user_id)
            root = group.root
            if root.user_id == user_id and root.linked_by != BY_FACE:
                return None
            await self._set(session, root, linked(root, user_id, by), now)
            before = {"user_id": group.aggregate.user_id}
            return _entry("linked", root, by, now, before=before, after={"user_id": user_id})

        await self._change(global_id, work)

    async def unlink(self, global_id: int, *, by: str, now: datetime) -> None:
        """Reject the links of a merge group: no camera links the same identities again."""

        async def work(session: Any, group: MergeGroup) -> AuditEntry | None:
            user_ids = [one.user_id for one in group.members if one.user_id]
            if not user_ids:
                return None
            for one in group.members:
                if one is group.root or one.user_id:
                    rejected = user_ids if one is group.root else [one.user_id]
                    await self._set(session, one, unlinked(one, rejected), now)
            return _entry("unlinked", group.root, by, now, before={"user_id": group.aggregate.user_id})

        await self._change(global_id, work)

    async def _check_enrolled(self, session: Any, user_id: str) -> None:
        identity = (await self._identities.find_by_id(session, [user_id])).get(user_id)
        if identity is not None and identity.merge:
            raise ContractError(
                PERSON_MERGED, f"{user_id} was merged into {identity.merge.into}: link to that user id"
            )
        if identity is None or identity.deleted:
            raise identity_unknown(user_id)

    async def merge(self, source: int, into: int, *, by: str, now: datetime) -> None:
        """Merge `source`, with all its members, into `into`.

        Raises ContractError(`detected-person-unknown`, `merge-impossible`).
        """
        if source == into:
            raise ContractError(MERGE_IMPOSSIBLE, f"{source} is {into} already")

        async def work(session: Any, group: MergeGroup) -> AuditEntry | None:
            target = await self._groups.get(session, into)
            _check_root(source, group, f"merge {group.root.global_id}")
            _check_root(into, target, f"merge into {target.root.global_id}")
            await self._check_same_user(group, target)
            await self._set(session, group.root, {"merged_into": into}, now)
            await self._lock(session, target.root)
            return _entry("merged", group.root, by, now, after={"into": into})

        await self._change(source, work)

    async def _check_same_user(self, group: MergeGroup, target: MergeGroup) -> None:
        """Raise ContractError(`merge-impossible`) for groups of two identities."""
        linked = {one.aggregate.user_id for one in (group, target)} - {None}
        shown = set((await resolve_user_ids(self._identities, [one for one in linked if one])).values())
        if len(shown) > 1:
            raise ContractError(
                MERGE_IMPOSSIBLE,
                f"the persons are linked to {' and '.join(sorted(shown))}: unlink one, or merge those first",
            )

    async def unmerge(self, source: int, *, by: str, now: datetime) -> None:
        """Undo the merge of `source`. Raises ContractError as `merge` does."""

        async def work(session: Any, group: MergeGroup) -> AuditEntry | None:
            person = next(one for one in group.members if one.global_id == source)
            if person.merged_into is None:
                raise ContractError(MERGE_IMPOSSIBLE, f"{source} is not merged: there is nothing to undo")
            target = next(one for one in group.members if one.global_id == person.merged_into)
            await self._set(session, person, {"merged_into": None}, now)
            await self._lock(session, target)
            return _entry("unmerged", person, by, now, after={"from": target.global_id})

        await self._change(source, work)

    async def delete(self, global_id: int, *, by: str, now: datetime) -> list[int]:
        """Delete a merge group with centroids and trails; return its global ids.

        Raises ContractError(`detected-person-unknown`, `merge-impossible`).
        """
        deleted: list[int] = []

        async def work(session: Any, group: MergeGroup) -> AuditEntry | None:
            _check_root(global_id, group, f"delete {group.root.global_id}, or undo the merge first")
            deleted[:] = group.ids
            await self._removal.remove(session, group.ids, now)
            return _entry("deleted", group.root, by, now, after={"global_ids": group.ids})

        await self._change(global_id, work)
        return deleted

    async def _change(
        self, global_id: int, work: Callable[[Any, MergeGroup], Awaitable[AuditEntry | None]]
    ) -> None:
        """Run `work` on a group and store its audit entry, in one transaction."""

        async def attempt(session: Any) -> None:
            entry = await work(session, await self._groups.get(session, global_id))
            if entry:
                await self._audit.record(entry, session)

        await self._mongo.transact(attempt)

    async def _lock(self, session: Any, person: DetectedPerson) -> None:
        """Conflict with other transactions on this person: merges could form a ring.

        The write must change the document, which a timestamp of the same millisecond does not.
        """
        change = {"$inc": {"merges": 1}}
        await self._persons.update_one({"_id": person.global_id}, change, session=session)

    async def _set(
        self, session: Any, person: DetectedPerson, fields: Mapping[str, Any], now: datetime
    ) -> None:
        change = {"$set": {**fields, "updated_at": now}}
        await self._persons.update_one({"_id": person.global_id}, change, session=session)


def linked(person: DetectedPerson, user_id: str, by: str) -> Document:
    """Return the fields of a person that is linked to `user_id`.

    The former link stays in `linked_before`: the centroid may have faces of that identity.
    """
    earlier = [*person.linked_before, *([person.user_id] if person.user_id else [])]
    return {
        "user_id": user_id,
        # A key may have the name that stands for a link by a camera.
        "linked_by": f"key {by}" if by == BY_FACE else by,
        "linked_before": [one for one in dict.fromkeys(earlier) if one != user_id],
        "not_users": [one for one in person.not_users if one != user_id],
    }


def unlinked(person: DetectedPerson, rejected: Sequence[str | None]) -> Document:
    """Return the fields of a person after it lost the links `rejected` for good."""
    return {
        "user_id": None,
        "linked_by": None,
        "linked_before": [one for one in person.linked_before if one not in rejected],
        "not_users": list(dict.fromkeys([*person.not_users, *rejected])),
    }


def _check_root(global_id: int, group: MergeGroup, instead: str) -> None:
    root = group.root.global_id
    if root != global_id:
        raise ContractError(MERGE_IMPOSSIBLE, f"{global_id} was merged into {root}: {instead}")


def _entry(
    act: str,
    person: DetectedPerson,
    by: str,
    now: datetime,
    *,
    before: Document | None = None,
    after: Document | None = None,
) -> AuditEntry:
    what, subject = f"detected-person.{act}", f"#{person.global_id}"
    return AuditEntry(who=by, what=what, subject=subject, at=now, before=before, after=after)
