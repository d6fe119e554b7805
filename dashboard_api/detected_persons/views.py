"""Define bodies and views of detected persons: the fields of seed 004 and more."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from broker_bridge.contract.ids import SpaceId
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import VisitSegment
from broker_bridge.registry.identities.model import Identity
from dashboard_api.http.base_models import Body, DisplayName, Numbers, Time, UserId, View, Whole

MOST_ID = 2**53 - 1
"""The largest integer that every reader of JSON takes unchanged."""
MOST_MATCHES = 100

GlobalId = Annotated[int, Field(ge=1, le=MOST_ID), Whole]
Corners = Annotated[
    tuple[float, float, float, float],
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}),
]
Similarity = Annotated[float, Field(ge=-1, le=1)]


class NameBody(Body):
    """The name of a detected person; null removes it."""

    assigned_name: Annotated[DisplayName, AfterValidator(str.strip), Field(min_length=1)] | None


class LinkBody(Body):
    user_id: UserId


class IntoBody(Body):
    into: GlobalId


class FaceQuery(Body):
    """A face: as many numbers as its space has dimensions.

    Defaults: the space `api.default_spaces.face`, and the tracker's threshold of the space.
    """

    face_embedding: Numbers
    threshold: Similarity | None = None
    space: SpaceId | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_MATCHES), Whole] = 5


class FaceMatch(View):
    """A person that resembles the face; `similarity` is the mean cosine to its faces."""

    global_id: int
    similarity: float
    user_id: str | None
    name: str | None


class FaceMatches(View):
    matches: list[FaceMatch]


class PositionView(View):
    """The last position on a camera: `bbox` is x1, y1, x2, y2 in pixels."""

    bbox: Corners
    timestamp: Time


class DetectedPersonView(View):
    """A detected person.

    `name` is the assigned name, else that of the linked identity.

    `linked_by` is `face`, or the name of the API key that linked it. Averages are the mean of each camera's
    mean; metres are those of calibrated cameras. `merged` are the global ids that were merged into this
    person; its figures are the sums of all.
    """

    global_id: int
    user_id: str | None
    linked_by: str | None
    assigned_name: str | None
    name: str | None
    face_quality: float | None
    quality_scores: list[float]
    avg_height_pixels: float | None
    avg_width_pixels: float | None
    avg_height_meters: float | None
    first_seen: Time
    last_seen: Time
    total_appearances: int
    total_detections: int
    cameras_visited: list[str]
    current_site: str
    current_positions: dict[str, PositionView]
    is_active: bool
    merged: list[int]
    created_at: Time | None
    updated_at: Time | None


class DetectedPersonDetail(DetectedPersonView):
    """A person with its centroid.

    `face_embedding` is a unit vector in `face_space`. Biometric data: null for a viewer's key.
    """

    face_space: str | None
    face_embedding: list[float] | None


class ActivePersonView(DetectedPersonView):
    """A person that is seen now on `cameras`, `since` the start of that visit."""

    cameras: list[str]
    since: Time


class ActivePersonList(View):
    active_persons: int
    persons: list[ActivePersonView]


class DetectedPersonPage(View):
    items: list[DetectedPersonView]
    next_cursor: str | None


class VisitSegmentView(View):
    """A stay on one camera without a break.

    `global_id` is the one that was assigned then.
    """

    global_id: int
    device_id: str
    site_id: str
    since: Time
    until: Time
    detections: int


class TrailPage(View):
    global_id: int
    items: list[VisitSegmentView]
    next_cursor: str | None


class DeletedPersons(View):
    """The global ids of the deleted merge group."""

    global_ids: list[int]


@dataclass(frozen=True)
class ViewContext:
    """The shared facts of views; a person seen since `active_since` is active.

    `enrolled` has the identity by linked user id, `metres_per_pixel` the calibrated cameras.
    """

    active_since: datetime
    enrolled: Mapping[str, Identity]
    metres_per_pixel: Mapping[str, float]

    def identity_of(self, group: MergeGroup) -> tuple[str | None, str | None]:
        """Return user id and name; the user id is None while the identity is deleted."""
        aggregate = group.aggregate
        identity = self.enrolled.get(aggregate.user_id) if aggregate.user_id else None
        name = aggregate.assigned_name or (identity.display_name if identity else None)
        return (identity.user_id if identity else None), name


def to_view(group: MergeGroup, context: ViewContext) -> DetectedPersonView:
    return DetectedPersonView(**_fields(group, context))


def to_detail(group: MergeGroup, context: ViewContext, centroid: FaceCentroid | None) -> DetectedPersonDetail:
    return DetectedPersonDetail(
        **_fields(group, context),
        face_embedding=centroid.unit.tolist() if centroid else None,
        face_space=centroid.space if centroid else None,
    )


def to_active(
    group: MergeGroup, context: ViewContext, present_since: Mapping[int, datetime]
) -> ActivePersonView:
    aggregate = group.aggregate
    here = [
        device_id
        for device_id, camera in aggregate.cameras.items()
        if camera.last_seen >= context.active_since
    ]  # fmt: skip
    starts = [present_since[global_id] for global_id in group.ids if global_id in present_since]
    return ActivePersonView(
        **_fields(group, context), cameras=here, since=min(starts, default=aggregate.last_seen)
    )  # fmt: skip


def _fields(group: MergeGroup, context: ViewContext) -> dict[str, Any]:
    """Return the fields of DetectedPersonView."""
    aggregate = group.aggregate
    user_id, name = context.identity_of(group)
    return {
        "global_id": aggregate.global_id,
        "user_id": user_id,
        "linked_by": aggregate.linked_by if user_id else None,
        "assigned_name": aggregate.assigned_name,
        "name": name,
        "face_quality": aggregate.face_quality,
        "quality_scores": list(aggregate.quality_scores),
        "avg_height_pixels": aggregate.avg_height_pixels,
        "avg_width_pixels": aggregate.avg_width_pixels,
        "avg_height_meters": aggregate.avg_height_meters(context.metres_per_pixel),
        "first_seen": aggregate.first_seen,
        "last_seen": aggregate.last_seen,
        "total_appearances": aggregate.total_appearances,
        "total_detections": aggregate.total_detections,
        "cameras_visited": list(aggregate.cameras_visited),
        "current_site": aggregate.site_id,
        "current_positions": {
            device_id: {"bbox": camera.box.corners, "timestamp": camera.last_seen}
            for device_id, camera in aggregate.cameras.items()
        },
        "is_active": aggregate.last_seen >= context.active_since,
        "merged": [one.global_id for one in group.merged],
        "created_at": aggregate.created_at,
        "updated_at": aggregate.updated_at,
    }


def to_segment(segment: VisitSegment) -> VisitSegmentView:
    return VisitSegmentView(
        global_id=segment.global_id,
        device_id=segment.device_id,
        site_id=segment.site_id,
        since=segment.since,
        until=segment.until,
        detections=segment.detections,
    )
