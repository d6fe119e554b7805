"""`/api/v1/sync/status`: how far each device has followed the history of its site."""

from fastapi import APIRouter

from broker_bridge.registry.devices.model import AppliedVersion
from broker_bridge.registry.mongo.versions import History
from dashboard_api.devices.views import DeviceSync, SyncStatusView
from dashboard_api.services.security import MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1/sync", tags=["sync"])


@router.get("/status", dependencies=[MAY_READ])
async def status(services: ServicesDep) -> SyncStatusView:
    """The registry's history, and where each device stands in it."""
    # Devices first: one that is up to date with what we read after it would be so with what it has seen.
    applied = await services.registry.devices.applied_versions()
    sites = sorted({one.site_id for one in applied})
    heads = {site_id: await services.overview.site_head(site_id) for site_id in sites}
    return to_status(await services.registry.versions.read(), applied, heads)


def to_status(history: History, applied: list[AppliedVersion], heads: dict[str, int]) -> SyncStatusView:
    """Compare each device with the newest version that concerns its site."""
    devices = [
        DeviceSync(
            device_id=one.device_id,
            site_id=one.site_id,
            epoch=one.epoch,
            version=one.version,
            applied_at=one.at,
            site_version=heads[one.site_id],
            up_to_date=one.confirms(history.epoch, heads[one.site_id]),
        )
        for one in applied
    ]
    up_to_date = sum(device.up_to_date for device in devices)
    return SyncStatusView(
        epoch=history.epoch,
        version=history.version,
        horizon=history.horizon,
        up_to_date=up_to_date,
        behind=len(devices) - up_to_date,
        devices=devices,
    )
