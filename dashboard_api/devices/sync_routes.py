"""Routes of `/api/v1/sync`: what devices have applied, and new epochs."""

from typing import Annotated

from fastapi import APIRouter

from broker_bridge.registry.api_keys import ApiKey
from dashboard_api.devices.conversions import to_sync_status
from dashboard_api.devices.views import EpochView, SyncStatusView
from dashboard_api.services.dependencies import ClockDep, DevicesDep, EpochsDep, OverviewDep, VersionsDep
from dashboard_api.services.security import MAY_ADMINISTER, MAY_READ

router = APIRouter(prefix="/api/v1/sync", tags=["sync"])


@router.get("/status", dependencies=[MAY_READ])
async def status(devices: DevicesDep, overview: OverviewDep, versions: VersionsDep) -> SyncStatusView:
    """Show the version of the registry and the applied version of each device."""
    # Devices first: a change between the two reads makes a device look behind, never up to date by mistake.
    applied = await devices.applied_versions()
    sites = sorted({device.site_id for device in applied})
    heads = {site_id: await overview.site_head(site_id) for site_id in sites}
    return to_sync_status(await versions.read(), applied, heads)


@router.post("/new-epoch")
async def begin_epoch(epochs: EpochsDep, now: ClockDep, key: Annotated[ApiKey, MAY_ADMINISTER]) -> EpochView:
    """Begin an epoch after a backup of the database was restored.

    Every device then syncs a snapshot, and confirmations of the epoch before count no more.
    """
    history = await epochs.begin(by=key.name, now=now())
    return EpochView(epoch=history.epoch, version=history.version)
