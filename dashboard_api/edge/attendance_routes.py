"""Route of `/api/v1/identities/{user_id}/visits`: the attendance of an identity."""

from fastapi import APIRouter

from broker_bridge.contract.ids import UserId
from dashboard_api.edge.conversions import to_attendance
from dashboard_api.edge.views import AttendanceView
from dashboard_api.services.dependencies import AttendanceDep, IdentitiesDep
from dashboard_api.services.security import MAY_READ

router = APIRouter(prefix="/api/v1/identities", tags=["people"])


@router.get("/{user_id}/visits", dependencies=[MAY_READ])
async def show_visits(
    user_id: UserId, identities: IdentitiesDep, attendance: AttendanceDep
) -> AttendanceView:
    """Count visits and recognitions of an identity, in total and by site.

    A deleted identity keeps its counts.
    """
    await identities.get(user_id)
    return to_attendance(user_id, await attendance.count_by_site(user_id))
