"""`/api/v1/identities/{user_id}/visits`: how often somebody came."""

from fastapi import APIRouter

from broker_bridge.contract.ids import UserId
from dashboard_api.edge.conversions import to_attendance
from dashboard_api.edge.views import AttendanceView
from dashboard_api.services.security import MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1/identities", tags=["people"])


@router.get("/{user_id}/visits", dependencies=[MAY_READ])
async def show_visits(user_id: UserId, services: ServicesDep) -> AttendanceView:
    """Visits and recognitions of a person, also of a deleted one, in all and by site."""
    await services.registry.identities.get(user_id)
    return to_attendance(user_id, await services.registry.attendance.count_by_site(user_id))
