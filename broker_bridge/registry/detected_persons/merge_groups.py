"""Read merge groups: a detected person with all that were merged into it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.mongo.client import Document, Mongo

from .documents import person_from_document
from .model import DetectedPerson, aggregate

DETECTED_PERSON_UNKNOWN = "detected-person-unknown"


@dataclass(frozen=True)
class MergeGroup:
    """A `root` and the detected persons that were merged into it, by global id."""

    root: DetectedPerson
    merged: tuple[DetectedPerson, ...] = ()

    @cached_property
    def aggregate(self) -> DetectedPerson:
        """One record for the whole group."""
        return aggregate(self.root, self.merged) if self.merged else self.root

    @property
    def members(self) -> tuple[DetectedPerson, ...]:
        return (self.root, *self.merged)

    @property
    def ids(self) -> list[int]:
        """The global ids, that of the root first."""
        return [one.global_id for one in self.members]


class MergeGroups:
    """Reads collection `persons`. A session of None reads outside of any transaction."""

    def __init__(self, mongo: Mongo) -> None:
        self._persons = mongo.db.persons

    async def get(self, session: Any, global_id: int) -> MergeGroup:
        """Return the group of a person, merged or not.

        Raises ContractError(`detected-person-unknown`).
        """
        found = await self.find(session, [global_id])
        if global_id not in found:
            raise ContractError(DETECTED_PERSON_UNKNOWN, f"there is no detected person {global_id}")
        return found[global_id]

    async def find(self, session: Any, global_ids: Iterable[int]) -> dict[int, MergeGroup]:
        """Return the group of each of `global_ids`; unknown ids are left out."""
        wanted = list(global_ids)
        persons = await self._read(session, {"_id": {"$in": wanted}})
        targets = _targets(persons)
        while targets:
            persons |= await self._read(session, {"_id": {"$in": list(targets)}})
            targets = _targets(persons) - targets
        roots = {one: _root(one, persons) for one in wanted if one in persons}
        groups = await self.find_of_roots(session, {root: persons[root] for root in roots.values()})
        return {one: groups[root] for one, root in roots.items()}

    async def find_of_roots(self, session: Any, roots: dict[int, DetectedPerson]) -> dict[int, MergeGroup]:
        """Return the groups of `roots`, persons that are not merged, by global id."""
        root_of = {global_id: global_id for global_id in roots}
        merged: dict[int, list[DetectedPerson]] = {global_id: [] for global_id in roots}
        level = list(roots)
        while level:
            found = await self._read(session, {"merged_into": {"$in": level}})
            level = list(found)
            for one in found.values():
                if one.merged_into is not None:
                    root_of[one.global_id] = root_of[one.merged_into]
                    merged[root_of[one.global_id]].append(one)
        return {
            global_id: MergeGroup(root, tuple(sorted(merged[global_id], key=lambda one: one.global_id)))
            for global_id, root in roots.items()
        }

    async def _read(self, session: Any, query: Document) -> dict[int, DetectedPerson]:
        cursor = self._persons.find(query, session=session)
        return {found["_id"]: person_from_document(found) async for found in cursor}


def _targets(persons: dict[int, DetectedPerson]) -> set[int]:
    """Return the ids that `persons` are merged into and that are not among them."""
    return {one.merged_into for one in persons.values() if one.merged_into is not None} - persons.keys()


def _root(global_id: int, persons: dict[int, DetectedPerson]) -> int:
    into = persons[global_id].merged_into
    while into is not None and into in persons:
        global_id, into = into, persons[into].merged_into
    return global_id
