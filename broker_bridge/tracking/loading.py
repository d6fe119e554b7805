"""Detected persons from MongoDB into memory, with how they are known and where they were a moment ago."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import VisitSegment

from .active_set import ActivePerson


async def load_active(
    registry: Registry, groups: Mapping[int, MergeGroup], timeout: timedelta
) -> list[ActivePerson]:
    """These families, by the global id of the root. Raises RegistryError."""
    if not groups:
        return []
    dimensions = await registry.spaces.dimensions()
    known = await registry.tracker_store.centroids_of(one for group in groups.values() for one in group.ids)
    # What somebody has spoilt in MongoDB must not stop the rest.
    faces = {
        one: [face for face in few if len(face.mean) == dimensions.get(face.space)]
        for one, few in known.items()
    }
    newest = max(group.root.last_seen for group in groups.values())
    stays: dict[int, list[VisitSegment]] = {}
    for stay in await registry.tracker_store.segments_since(list(groups), newest - timeout):
        stays.setdefault(stay.global_id, []).append(stay)
    return [_present(group, faces, stays.get(global_id, ())) for global_id, group in groups.items()]


def _present(
    group: MergeGroup, faces: Mapping[int, Sequence[FaceCentroid]], stays: Sequence[VisitSegment]
) -> ActivePerson:
    """A family as it is kept in memory: what is seen is counted for its root, which has the link of all."""
    person = replace(
        group.root,
        user_id=group.aggregate.user_id,
        linked_by=group.aggregate.linked_by,
        not_users=tuple({user_id for one in group.members for user_id in one.not_users}),
    )
    own = {face.space: face for face in faces.get(person.global_id, ())}
    return ActivePerson(
        person,
        own,
        tuple(face for one in group.merged for face in faces.get(one.global_id, ())),
        {space: face.copy() for space, face in own.items()},
        {stay.device_id: stay for stay in sorted(stays, key=lambda stay: stay.until)},
    )
