"""A detected person together with those who were merged into them, as one transaction sees them."""

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
    """`root` is whom everybody else in it turned out to be; `merged` are they, by global id."""

    root: DetectedPerson
    merged: tuple[DetectedPerson, ...] = ()

    @cached_property
    def aggregate(self) -> DetectedPerson:
        """What is known of all of them, as of one person."""
        return aggregate(self.root, self.merged) if self.merged else self.root

    @property
    def members(self) -> tuple[DetectedPerson, ...]:
        return (self.root, *self.merged)

    @property
    def ids(self) -> list[int]:
        """Their global ids, the root's first."""
        return [one.global_id for one in self.members]


class MergeGroups:
    """Reads collection `persons`. `None` as session reads outside of any."""

    def __init__(self, mongo: Mongo) -> None:
        self._persons = mongo.db.persons

    async def of(self, session: Any, global_id: int) -> MergeGroup:
        """The family of a person, who may be merged; raises ContractError(`detected-person-unknown`)."""
        found = await self.of_all(session, [global_id])
        if global_id not in found:
            raise ContractError(DETECTED_PERSON_UNKNOWN, f"there is no detected person {global_id}")
        return found[global_id]

    async def of_all(self, session: Any, global_ids: Iterable[int]) -> dict[int, MergeGroup]:
        """By each of `global_ids` the family it belongs to; whoever is not there is left out."""
        asked = list(global_ids)
        people = await self._read(session, {"_id": {"$in": asked}})
        targets = _targets(people)
        while targets:
            people |= await self._read(session, {"_id": {"$in": list(targets)}})
            targets = _targets(people) - targets
        roots = {one: _root(one, people) for one in asked if one in people}
        groups = await self.below(session, {root: people[root] for root in roots.values()})
        return {one: groups[root] for one, root in roots.items()}

    async def below(self, session: Any, roots: dict[int, DetectedPerson]) -> dict[int, MergeGroup]:
        """The families of people who are merged into nobody."""
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


def _targets(people: dict[int, DetectedPerson]) -> set[int]:
    """Whom these people went into, as far as they are not among them."""
    return {one.merged_into for one in people.values() if one.merged_into is not None} - people.keys()


def _root(global_id: int, people: dict[int, DetectedPerson]) -> int:
    into = people[global_id].merged_into
    while into is not None and into in people:
        global_id, into = into, people[into].merged_into
    return global_id
