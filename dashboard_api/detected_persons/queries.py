"""Read detected persons for the routes: as views, by face, as an export."""

import json
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.wire import format_time
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.export import export_person
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.queries import combine_centroids
from broker_bridge.registry.spaces import limits_of
from dashboard_api.identities.conversions import default_space, to_vector
from dashboard_api.services.services import Services

from .views import DetectedPersonView, FaceMatch, FaceQuery, ViewContext, to_view


def active_since(services: Services) -> datetime:
    """Return the time since when a sighting makes a person active.

    Sightings are written in intervals, so one interval is added to the timeout.
    """
    tracking = services.tracking
    return services.now() - timedelta(seconds=tracking.person_timeout + tracking.db_sync_interval)


async def view_context_of(services: Services, groups: Iterable[MergeGroup]) -> ViewContext:
    linked = {group.aggregate.user_id for group in groups} - {None}
    return ViewContext(
        active_since=active_since(services),
        enrolled=await services.registry.detected_person_queries.linked_identities(
            one for one in linked if one
        ),
        metres_per_pixel=await services.registry.devices.calibrations(),
    )


async def view_of(services: Services, global_id: int) -> DetectedPersonView:
    group = await services.registry.detected_person_queries.get_group(global_id)
    return to_view(group, await view_context_of(services, [group]))


async def centroid_of(services: Services, group: MergeGroup) -> FaceCentroid | None:
    """Return a group's centroid in the default space, else the one of most weight."""
    by_person = await services.registry.detected_person_queries.centroids(group.ids)
    faces = sorted((one for by_space in by_person.values() for one in by_space), key=lambda one: -one.weight)
    spaces = [services.settings.default_spaces.get("face"), *(one.space for one in faces)]
    found = (combine_centroids(faces, space) for space in spaces if space)
    return next((one for one in found if one), None)


async def find_matches(services: Services, query: FaceQuery) -> list[FaceMatch]:
    """Return the persons that resemble a face, most similar first, each once.

    Raises ContractError.
    """
    record = await services.registry.spaces.record(query.space or default_space(services.settings, "face"))
    space = record.embedding_space
    vector = to_array(to_vector(query.face_embedding, None, space.dimension))
    threshold = query.threshold
    if threshold is None:
        threshold = services.tracking.tracked_limits(space.id, limits_of(record)).tracked_similarity
    # Several candidates may be one person, or deleted a moment ago: read more until there are enough.
    wanted = 2 * query.limit
    while True:
        (found,) = await services.registry.face_search.candidates(space, [vector], wanted, threshold)
        groups = await services.registry.detected_person_queries.find_groups(one.global_id for one in found)
        best: dict[int, tuple[MergeGroup, float]] = {}
        for one in found:
            if one.global_id in groups:
                group = groups[one.global_id]
                best.setdefault(group.root.global_id, (group, one.similarity))
        if len(best) >= query.limit or len(found) < wanted:
            break
        wanted *= 2
    nearest = list(best.values())[: query.limit]
    context = await view_context_of(services, [group for group, _ in nearest])
    return [_to_match(group, similarity, context) for group, similarity in nearest]


def _to_match(group: MergeGroup, similarity: float, context: ViewContext) -> FaceMatch:
    user_id, name = context.identity_of(group)
    # Rounding may lead past 1.
    shown = round(min(1.0, float(similarity)), 6)
    return FaceMatch(global_id=group.root.global_id, similarity=shown, user_id=user_id, name=name)


async def export_lines(services: Services) -> AsyncIterator[bytes]:
    """Yield all persons, a line of JSON each."""
    async for person, faces in services.registry.detected_person_queries.all_with_centroids():
        document = export_person(person, faces)
        yield json.dumps(document, default=_time, ensure_ascii=False).encode() + b"\n"


def _time(value: Any) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    raise TypeError(f"{type(value).__name__} is not a type of an exported field: add its conversion here")
