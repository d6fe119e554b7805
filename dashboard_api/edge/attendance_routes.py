"""Route of `/api/v1/identities/{user_id}/visits`: the attendance of an identity."""

from collections.abc import Mapping

from fastapi import APIRouter

from broker_bridge.registry.events.attendance import Attendance
from dashboard_api.edge.views import AttendanceView, SiteAttendance
from dashboard_api.http.base_models import UserId
from dashboard_api.services.dependencies import AttendanceDep, IdentitiesDep
from dashboard_api.services.security import MAY_READ

router = APIRouter(prefix="/api/v1/identities", tags=["people"])

NO_SITE = "-"
"""In counts by site: events of devices without a site. It is no valid site id."""


@router.get("/{user_id}/visits", dependencies=[MAY_READ])
async def show_visits(
    user_id: UserId, identities: IdentitiesDep, attendance: AttendanceDep
) -> AttendanceView:
    """Count visits and recognitions of an identity, in total and by site.

    A deleted identity keeps its counts.
    """
    await identities.get(user_id)
    return _to_view(user_id, await attendance.count_by_site(user_id))


def _to_view(user_id: str, by_site: Mapping[str | None, Attendance]) -> AttendanceView:
    counts = list(by_site.values())
    return AttendanceView(
        user_id=user_id,
        visits=sum(count.visits for count in counts),
        recognitions=sum(count.recognitions for count in counts),
        first_at=min((count.first_at for count in counts), default=None),
        last_at=max((count.last_at for count in counts), default=None),
        by_site={
            site_id or NO_SITE: SiteAttendance(visits=count.visits, recognitions=count.recognitions)
            for site_id, count in sorted(by_site.items(), key=lambda item: item[0] or "")
        },
    )
