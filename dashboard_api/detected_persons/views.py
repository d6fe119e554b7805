"""What the API takes and shows of detected persons: every field of seed 004's table, and more."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from broker_bridge.contract.ids import SpaceId, UserId
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import VisitSegment
from broker_bridge.registry.identities.model import Identity
from dashboard_api.http.base_models import Body, DisplayName, Numbers, Time, View

MOST_ID = 2**53 - 1
"""The largest integer that every reader of JSON takes unchanged."""
MOST_MATCHES = 100

GlobalId = Annotated[int, Field(ge=1, le=MOST_ID)]
Similarity = Annotated[float, Field(ge=-1, le=1)]


class NameBody(Body):
    """A name that somebody gives a detected person; null takes it away."""

    assigned_name: Annotated[DisplayName, AfterValidator(str.strip), Field(min_length=1)] | None


class LinkBody(Body):
    user_id: UserId


class IntoBody(Body):
    into: GlobalId


class FaceQuery(Body):
    """A face, as many numbers as its space has; without a space that of `api.default_spaces.face`.

    Without a threshold the tracker's own of that space holds.
    """

    face_embedding: Numbers
    threshold: Similarity | None = None
    space: SpaceId | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_MATCHES)] = 5


class FaceMatch(View):
    """`similarity` is the mean cosine to the faces that the person is known by."""

    global_id: int
    similarity: float
    user_id: str | None
    name: str | None


class FaceMatches(View):
    matches: list[FaceMatch]


class PositionView(View):
    """Where a camera last saw somebody: `bbox` is x1, y1, x2, y2 in pixels."""

    bbox: tuple[float, float, float, float]
    timestamp: Time


class DetectedPersonView(View):
    """Somebody whom cameras have seen. `name` is the assigned one, else that of whom they are linked with.

    `linked_by` is `face`, or the name of the API key that said so. Averages are the mean of each camera's
    mean; metres are those of calibrated cameras. `merged` are the global ids that turned out to be this
    person, whose figures are added up.
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
    """`face_embedding` is a unit vector in `face_space`. Biometric data: null for a viewer's key."""

    face_embedding: list[float] | None
    face_space: str | None


class ActivePersonView(DetectedPersonView):
    """`cameras` are where the person is seen now, `since` when that began."""

    cameras: list[str]
    since: Time


class ActivePersonList(View):
    active_persons: int
    persons: list[ActivePersonView]


class DetectedPersonPage(View):
    items: list[DetectedPersonView]
    next_cursor: str | None


class VisitSegmentView(View):
    """A person on one camera without a break; `global_id` is the one that was assigned then."""

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
    """The person and whoever was merged into them."""

    global_ids: list[int]


@dataclass(frozen=True)
class ViewContext:
    """What detected persons are seen in: who is seen at `active_since` or later is there now.

    `enrolled` has by user id who is shown for it, `metres_per_pixel` calibrated cameras.
    """

    active_since: datetime
    enrolled: Mapping[str, Identity]
    metres_per_pixel: Mapping[str, float]

    def who(self, group: MergeGroup) -> tuple[str | None, str | None]:
        """User id and name of a person; nobody's while the enrolled one is deleted."""
        whole = group.aggregate
        person = self.enrolled.get(whole.user_id) if whole.user_id else None
        name = whole.assigned_name or (person.display_name if person else None)
        return (person.user_id if person else None), name


def to_view(group: MergeGroup, setting: ViewContext) -> DetectedPersonView:
    return DetectedPersonView(**_fields(group, setting))


def to_detail(group: MergeGroup, setting: ViewContext, face: FaceCentroid | None) -> DetectedPersonDetail:
    return DetectedPersonDetail(
        **_fields(group, setting),
        face_embedding=face.unit.tolist() if face else None,
        face_space=face.space if face else None,
    )


def to_active(
    group: MergeGroup, setting: ViewContext, present_since: Mapping[int, datetime]
) -> ActivePersonView:
    whole = group.aggregate
    here = [
        device_id
        for device_id, camera in whole.cameras.items()
        if camera.last_seen >= setting.active_since
    ]  # fmt: skip
    begun = [present_since[global_id] for global_id in group.ids if global_id in present_since]
    return ActivePersonView(
        **_fields(group, setting), cameras=here, since=min(begun, default=whole.last_seen)
    )  # fmt: skip


def _fields(group: MergeGroup, setting: ViewContext) -> dict[str, Any]:
    """The fields of DetectedPersonView."""
    whole = group.aggregate
    user_id, name = setting.who(group)
    return {
        "global_id": whole.global_id,
        "user_id": user_id,
        "linked_by": whole.linked_by if user_id else None,
        "assigned_name": whole.assigned_name,
        "name": name,
        "face_quality": whole.face_quality,
        "quality_scores": list(whole.quality_scores),
        "avg_height_pixels": whole.avg_height_pixels,
        "avg_width_pixels": whole.avg_width_pixels,
        "avg_height_meters": whole.avg_height_meters(setting.metres_per_pixel),
        "first_seen": whole.first_seen,
        "last_seen": whole.last_seen,
        "total_appearances": whole.total_appearances,
        "total_detections": whole.total_detections,
        "cameras_visited": list(whole.cameras_visited),
        "current_site": whole.site_id,
        "current_positions": {
            device_id: {"bbox": camera.box.corners, "timestamp": camera.last_seen}
            for device_id, camera in whole.cameras.items()
        },
        "is_active": whole.last_seen >= setting.active_since,
        "merged": [one.global_id for one in group.merged],
        "created_at": whole.created_at,
        "updated_at": whole.updated_at,
    }


def to_stay(stay: VisitSegment) -> VisitSegmentView:
    return VisitSegmentView(
        global_id=stay.global_id,
        device_id=stay.device_id,
        site_id=stay.site_id,
        since=stay.since,
        until=stay.until,
        detections=stay.detections,
    )
