"""What the routes of detected persons ask the registry: with the enrolled, with faces, as an export."""

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
from dashboard_api.identities.conversions import default_space, to_vector
from dashboard_api.services.services import Services

from .views import DetectedPersonView, FaceMatch, FaceQuery, ViewContext, to_view


def active_since(services: Services) -> datetime:
    """Whoever was seen then or later is there now. What was seen is written in intervals, which are added."""
    tracking = services.tracking
    return services.now() - timedelta(seconds=tracking.person_timeout + tracking.db_sync_interval)


async def setting_of(services: Services, groups: Iterable[MergeGroup]) -> ViewContext:
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
    return to_view(group, await setting_of(services, [group]))


async def face_of(services: Services, group: MergeGroup) -> FaceCentroid | None:
    """How a person is known: in the default space of faces, else in the one with the most behind it."""
    held = await services.registry.detected_person_queries.centroids(group.ids)
    faces = sorted((one for few in held.values() for one in few), key=lambda one: -one.weight)
    spaces = [services.settings.default_spaces.get("face"), *(one.space for one in faces)]
    found = (combine_centroids(faces, space) for space in spaces if space)
    return next((one for one in found if one), None)


async def matches_of(services: Services, query: FaceQuery) -> list[FaceMatch]:
    """Who looks like a face, most similar first, each person once. Raises ContractError."""
    space = await services.registry.spaces.get(query.space or default_space(services.settings, "face"))
    vector = to_array(to_vector(query.face_embedding, None, space.dimension))
    threshold = query.threshold
    if threshold is None:
        threshold = services.tracking.limits_in(space.id).similarity
    # Of those found some may be one person, or deleted a moment ago: ask for more until there are enough.
    asked = 2 * query.limit
    while True:
        (found,) = await services.registry.face_search.candidates(space, [vector], asked, threshold)
        groups = await services.registry.detected_person_queries.find_groups(one.global_id for one in found)
        best: dict[int, tuple[MergeGroup, float]] = {}
        for one in found:
            if one.global_id in groups:
                group = groups[one.global_id]
                best.setdefault(group.root.global_id, (group, one.similarity))
        if len(best) >= query.limit or len(found) < asked:
            break
        asked *= 2
    nearest = list(best.values())[: query.limit]
    setting = await setting_of(services, [group for group, _ in nearest])
    return [_to_match(group, similarity, setting) for group, similarity in nearest]


def _to_match(group: MergeGroup, similarity: float, setting: ViewContext) -> FaceMatch:
    user_id, name = setting.who(group)
    # Rounding may lead past 1.
    shown = round(min(1.0, float(similarity)), 6)
    return FaceMatch(global_id=group.root.global_id, similarity=shown, user_id=user_id, name=name)


async def export_lines(services: Services) -> AsyncIterator[bytes]:
    """Everybody, a line of JSON each."""
    async for person, faces in services.registry.detected_person_queries.all_with_centroids():
        document = export_person(person, faces)
        yield json.dumps(document, default=_time, ensure_ascii=False).encode() + b"\n"


def _time(value: Any) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    raise TypeError(f"{type(value).__name__} is nothing that is kept of a detected person")
