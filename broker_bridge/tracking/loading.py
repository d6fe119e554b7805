"""Load detected persons from MongoDB into the tracker's memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import VisitSegment

from .active_person import ActivePerson


async def load_active(
    registry: Registry, groups: Mapping[int, MergeGroup], timeout: timedelta
) -> list[ActivePerson]:
    """Return an active person for each merge group, keyed by the root's id.

    Raises RegistryError.
    """
    if not groups:
        return []
    dimensions = await registry.spaces.dimensions()
    stored = await registry.tracker_store.centroids_of(one for group in groups.values() for one in group.ids)
    # A centroid of a wrong dimension, as after an edit by hand, must not stop the rest.
    centroids = {
        global_id: [one for one in by_space if len(one.mean) == dimensions.get(one.space)]
        for global_id, by_space in stored.items()
    }
    newest = max(group.root.last_seen for group in groups.values())
    segments: dict[int, list[VisitSegment]] = {}
    for segment in await registry.tracker_store.segments_since(list(groups), newest - timeout):
        segments.setdefault(segment.global_id, []).append(segment)
    return [_to_active(group, centroids, segments.get(global_id, ())) for global_id, group in groups.items()]


def _to_active(
    group: MergeGroup, centroids: Mapping[int, Sequence[FaceCentroid]], segments: Sequence[VisitSegment]
) -> ActivePerson:
    """Return the root of a merge group with the link of the group."""
    record = replace(
        group.root,
        user_id=group.aggregate.user_id,
        linked_by=group.aggregate.linked_by,
        not_users=tuple({user_id for member in group.members for user_id in member.not_users}),
    )
    own = {centroid.space: centroid for centroid in centroids.get(record.global_id, ())}
    return ActivePerson(
        record,
        own,
        tuple(one for member in group.merged for one in centroids.get(member.global_id, ())),
        {space: centroid.copy() for space, centroid in own.items()},
        {segment.device_id: segment for segment in sorted(segments, key=lambda one: one.until)},
    )
