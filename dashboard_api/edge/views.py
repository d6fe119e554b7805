"""What devices that poll over HTTP send and are told (seed 002), one model per body and per answer."""

from typing import Annotated, Any, Literal

from pydantic import Field

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import Epoch, EventId, RequestId, SpaceId, UserId
from broker_bridge.contract.messages import Ratio, SpaceDigests, Version
from broker_bridge.contract.wire import WireTime
from dashboard_api.devices.views import ProblemView
from dashboard_api.http.base_models import Body, DisplayName, Numbers, Time, View

MOST_VISITS = 500


class EdgeTemplate(View):
    """`embedding` is base64 of little-endian float32, of unit length."""

    template_id: str
    space: str
    embedding: str
    quality: float | None


class EdgeRemoval(View):
    """Forget this person."""

    action: Literal["delete"] = "delete"
    face_id: str
    version: int


class EdgeUpsert(View):
    """A person's whole state: templates that are not named go away, a flag that is null is cleared.

    `update` is of somebody whom the site had before, `create` of somebody whom the device may not have yet.
    `name` is there in dev mode only, `templates` unless `vectors=false`.
    """

    action: Literal["create", "update"]
    face_id: str
    version: int
    flag: str | None
    name: str | None = None
    templates: list[EdgeTemplate] = Field(default_factory=list)


class EdgeChanges(View):
    """Changes in order of version. `next` is the path to ask for when there is `more`, unless null.

    With `reset` this begins a full snapshot: once there is no `more`, whoever was not named in it is gone.
    Both `version` (with `epoch`) and `sync_timestamp` may be the next `since`.
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
    """The device holds all changes up to `version`, deletions included."""

    epoch: Epoch
    version: Version
    spaces: SpaceDigests = Field(default_factory=dict)


class ConfirmView(View):
    success: bool = True
    device_id: str
    epoch: str
    version: int


class VisitorBody(Body):
    """Somebody new: `vector` is base64 of little-endian float32, or `embedding` a list of numbers."""

    request_id: RequestId
    space: SpaceId | None = None
    vector: Annotated[str, Field(max_length=8 * MAX_DIMENSION)] | None = None
    embedding: Numbers | None = None
    quality: Ratio | None = None
    name: DisplayName | None = None


class VisitorView(View):
    """Who it is now: `created`, or `exists` where the face is that of `user_id` already."""

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


class VisitsBody(Body):
    """Each visit is an object as VisitBody, judged by itself."""

    visits: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_VISITS)]


class VisitError(ProblemView):
    """Why the visit at `index` of the request was not recorded."""

    index: int


class VisitsView(View):
    """`stored` are the event ids recorded now or before; `recorded` is how many are new. `success` says that
    the report was gone through; what was not taken is in `errors`, and sending it again does not help."""

    success: bool = True
    recorded: int
    stored: list[str]
    errors: list[VisitError]


class SiteAttendance(View):
    visits: int
    recognitions: int


class AttendanceView(View):
    """Events of one person; times are those of the devices."""

    user_id: str
    visits: int
    recognitions: int
    first_at: Time | None
    last_at: Time | None
    by_site: dict[str, SiteAttendance]
