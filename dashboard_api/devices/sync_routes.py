"""Route of `/api/v1/sync/status`: the versions that devices have applied."""

from fastapi import APIRouter

from dashboard_api.devices.conversions import to_sync_status
from dashboard_api.devices.views import SyncStatusView
from dashboard_api.services.dependencies import DevicesDep, OverviewDep, VersionsDep
from dashboard_api.services.security import MAY_READ

router = APIRouter(prefix="/api/v1/sync", tags=["sync"])


@router.get("/status", dependencies=[MAY_READ])
async def status(devices: DevicesDep, overview: OverviewDep, versions: VersionsDep) -> SyncStatusView:
    """Show the version of the registry and the applied version of each device."""
    # Devices first: a change between the two reads makes a device look behind, never up to date by mistake.
    applied = await devices.applied_versions()
    sites = sorted({device.site_id for device in applied})
    heads = {site_id: await overview.site_head(site_id) for site_id in sites}
    return to_sync_status(await versions.read(), applied, heads)
