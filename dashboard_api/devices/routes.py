"""Routes of `/api/v1/devices`: register, list and calibrate devices."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.errors import DEVICE_UNKNOWN, SITE_MISMATCH, ContractError
from broker_bridge.contract.heartbeat import silent_after
from broker_bridge.contract.ids import DeviceId, SiteId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.devices import DeviceRegistry
from broker_bridge.registry.devices.model import DeviceRecord
from dashboard_api.devices.conversions import to_view
from dashboard_api.devices.views import DeviceBody, DevicePage, DevicePatch, DeviceView
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, cut_page, from_cursor, to_cursor
from dashboard_api.services.dependencies import ClockDep, DevicesDep, PlacementsDep, SettingsDep, SpacesDep
from dashboard_api.services.security import MAY_ADMINISTER, MAY_READ

router = APIRouter(prefix="/api/v1", tags=["devices"])


@router.get("/devices", dependencies=[MAY_READ])
async def list_devices(
    *,
    devices: DevicesDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    now: ClockDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    site_id: Annotated[SiteId | None, Query()] = None,
    decommissioned: Annotated[bool, Query(description="List decommissioned devices instead")] = False,
) -> DevicePage:
    """List devices in order of device id."""
    after = from_cursor(cursor, 1) or [""]
    found = await devices.page(
        after=after[0], limit=limit + 1, site_id=site_id, decommissioned=decommissioned
    )
    at = now()
    models = await spaces.models()
    silence = silent_after(settings.heartbeat_seconds)
    page, next_cursor = cut_page(found, limit, lambda last: to_cursor(last.device_id))
    return DevicePage(
        items=[to_view(device, models, at, silence) for device in page], next_cursor=next_cursor
    )


@router.post(
    "/devices",
    dependencies=[JSON_BODY],
    responses={201: {"model": DeviceView, "description": "Registered"}},
)
async def register(
    *,
    body: DeviceBody,
    devices: DevicesDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_ADMINISTER],
    response: Response,
) -> DeviceView:
    """Register a device at a site.

    Registering it again at its site changes nothing; another site is a 409: move the device with PATCH. A
    decommissioned device comes back.
    """
    known = (await devices.registered([body.device_id])).get(body.device_id)
    if known is not None and known.site_id != body.site_id:
        detail = f"{body.device_id} is registered at site {known.site_id}: move it with PATCH"
        raise ContractError(SITE_MISMATCH, detail)
    await devices.register(body.device_id, body.site_id, dev_mode=body.dev_mode, by=key.name)
    response.status_code = 200 if known else 201
    device = await _get(devices, body.device_id)
    return to_view(device, await spaces.models(), now(), silent_after(settings.heartbeat_seconds))


@router.get("/devices/{device_id}", dependencies=[MAY_READ])
async def show(
    device_id: DeviceId, devices: DevicesDep, spaces: SpacesDep, settings: SettingsDep, now: ClockDep
) -> DeviceView:
    """Show one device with its last reports."""
    device = await _get(devices, device_id)
    return to_view(device, await spaces.models(), now(), silent_after(settings.heartbeat_seconds))


# The operation id is what generated clients call the operation by.
@router.patch(
    "/devices/{device_id}",
    operation_id="calibrate_api_v1_devices__device_id__patch",
    dependencies=[JSON_BODY],
)
async def change(
    *,
    device_id: DeviceId,
    body: DevicePatch,
    devices: DevicesDep,
    placements: PlacementsDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_ADMINISTER],
) -> DeviceView:
    """Move a device to another site, or set its metres per pixel.

    Heights are computed from the metres per pixel. A moved device gets the gallery of its new site by a
    snapshot sync, once its own settings name that site. Until then it confirms nothing. Its calibration ends
    with the move.
    """
    if body.site_id is not None:
        await placements.move(device_id, body.site_id, by=key.name, now=now())
    if "metres_per_pixel" in body.model_fields_set:
        await devices.calibrate(device_id, body.metres_per_pixel, by=key.name, now=now())
    device = await _get(devices, device_id)
    return to_view(device, await spaces.models(), now(), silent_after(settings.heartbeat_seconds))


@router.delete("/devices/{device_id}")
async def decommission(
    *,
    device_id: DeviceId,
    devices: DevicesDep,
    placements: PlacementsDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_ADMINISTER],
) -> DeviceView:
    """Decommission a device.

    It is not served any more, and no deletion waits for it. Its reports and its retained messages are
    deleted, and its API keys are revoked. The id stays known: a device that appears under it again is
    refused until an admin registers it (POST). A repeat changes nothing.
    """
    await placements.decommission(device_id, by=key.name, now=now())
    device = await _get(devices, device_id)
    return to_view(device, await spaces.models(), now(), silent_after(settings.heartbeat_seconds))


async def _get(devices: DeviceRegistry, device_id: str) -> DeviceRecord:
    device = await devices.get(device_id)
    if device is None:
        raise ContractError(DEVICE_UNKNOWN, f"there is no device {device_id}")
    return device
