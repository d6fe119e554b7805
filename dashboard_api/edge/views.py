"""Bodies of `/api/edge`, for devices that poll over HTTP (seed 002)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import Epoch, EventId, RequestId, SpaceId
from broker_bridge.contract.messages import Liveness, Ratio, SpaceDigests, Version
from broker_bridge.contract.wire import WireTime
from dashboard_api.devices.views import ProblemView
from dashboard_api.http.base_models import (
    Body,
    DisplayName,
    DocumentedAs,
    Numbers,
    Time,
    UserId,
    View,
    Whole,
    WholeCounts,
    accept_any_object,
)

MOST_VISITS = 500


class EdgeTemplate(View):
    """`embedding` is base64 of little-endian float32, of unit length."""

    template_id: str
    space: str
    quality: float | None
    embedding: str


class EdgeRemoval(View):
    """Remove this identity from the device."""

    action: Literal["delete"] = "delete"
    face_id: str
    version: int


class EdgeUpsert(View):
    """The whole state of an identity.

    Templates that are not listed are removed, a flag that is null is cleared. `update` means that the site
    had the identity before, `create` that the device may not have it yet. `name` is present in dev mode only,
    `templates` unless `vectors=false`.
    """

    action: Literal["create", "update"]
    face_id: str
    version: int
    flag: str | None
    name: str | None = None
    templates: list[EdgeTemplate] = Field(default_factory=list)


class EdgeChanges(View):
    """Changes in order of version.

    With `more`, request the path in `next`. With `reset` this is the first page of a snapshot sync: after its
    last page remove every identity that it did not contain. Both `version` (with `epoch`) and
    `sync_timestamp` can be the next `since`.
    """

    success: bool = True
    changes: list[EdgeRemoval | EdgeUpsert]
    deleted: list[str]
    sync_timestamp: Time
    version: int
    epoch: str
    reset: bool
    more: bool
    next: str | None


class ConfirmBody(Body):
    """The device has applied all changes up to `version`, deletions included."""

    epoch: Epoch
    version: Annotated[Version, Whole]
    spaces: Annotated[SpaceDigests, WholeCounts] = Field(default_factory=dict)


class ConfirmView(View):
    success: bool = True
    device_id: str
    epoch: str
    version: int


class VisitorBody(Body):
    """A new visitor: `vector` is base64 of little-endian float32, `embedding` numbers."""

    request_id: RequestId
    space: SpaceId | None = None
    vector: Annotated[str, Field(max_length=8 * MAX_DIMENSION)] | None = None
    embedding: Numbers | None = None
    quality: Ratio | None = None
    name: DisplayName | None = None


class VisitorView(View):
    """The identity of a visitor: `created`, or `exists` with its `user_id`."""

    success: bool = True
    result: Literal["created", "exists"]
    user_id: str
    face_id: str
    similarity: float | None


class VisitBody(Body):
    event_id: EventId | None = None
    face_id: UserId
    timestamp: WireTime
    confidence: Ratio = 1.0
    liveness: Liveness | None = None


class VisitsBody(Body):
    """Visits, each an object like VisitBody and decided by itself."""

    visits: Annotated[
        list[Annotated[dict[str, Any], DocumentedAs(VisitBody)]],
        Field(min_length=1, max_length=MOST_VISITS, json_schema_extra=accept_any_object),
    ]


class VisitError(ProblemView):
    """Why the visit at `index` of the request was rejected."""

    index: int


class VisitsView(View):
    """The result of a report of visits.

    `stored` are the event ids that are on record now, `recorded` is the number of new ones. `success` means
    that every visit was decided. Visits in `errors` were rejected; they would be again.
    """

    success: bool = True
    recorded: int
    stored: list[str]
    errors: list[VisitError]


class SiteAttendance(View):
    visits: int
    recognitions: int


class AttendanceView(View):
    """Counts of the events of an identity; times are those of the devices."""

    user_id: str
    visits: int
    recognitions: int
    first_at: Time | None
    last_at: Time | None
    by_site: dict[str, SiteAttendance]
