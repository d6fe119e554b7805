"""`/api/v1/devices`: who takes part, and how they are."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.errors import DEVICE_UNKNOWN, MODEL_DIFFERS, SITE_MISMATCH, ContractError
from broker_bridge.contract.heartbeat import silent_after
from broker_bridge.contract.ids import DeviceId, SiteId
from broker_bridge.contract.wire import format_time
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.model import DeviceRecord
from dashboard_api.devices.views import DeviceBody, DevicePage, DevicePatch, DeviceView, ProblemView
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, from_cursor, to_cursor
from dashboard_api.services.security import MAY_ADMINISTER, MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1", tags=["devices"])


@router.get("/devices", dependencies=[MAY_READ])
async def list_devices(
    services: ServicesDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    site_id: Annotated[SiteId | None, Query()] = None,
) -> DevicePage:
    """Devices in order of device id."""
    after = from_cursor(cursor, 1) or [""]
    found = await services.registry.devices.page(after=after[0], limit=limit + 1, site_id=site_id)
    now = services.now()
    models = await services.registry.spaces.models()
    limit_of_silence = silent_after(services.settings.heartbeat_seconds)
    shown = [to_view(device, models, now, limit_of_silence) for device in found[:limit]]
    return DevicePage(items=shown, next_cursor=to_cursor(shown[-1].device_id) if len(found) > limit else None)


@router.post(
    "/devices",
    dependencies=[JSON_BODY],
    responses={201: {"model": DeviceView, "description": "Registered"}},
)
async def register(
    body: DeviceBody, services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER], response: Response
) -> DeviceView:
    """Let a device take part. Repeating it changes nothing; another site is refused with 409."""
    devices = services.registry.devices
    known = (await devices.registered([body.device_id])).get(body.device_id)
    if known is not None and known.site_id != body.site_id:
        raise ContractError(SITE_MISMATCH, f"{body.device_id} is registered at site {known.site_id}")
    await devices.register(body.device_id, body.site_id, dev_mode=body.dev_mode, by=key.name)
    response.status_code = 200 if known else 201
    return await show(body.device_id, services)


@router.get("/devices/{device_id}", dependencies=[MAY_READ])
async def show(device_id: DeviceId, services: ServicesDep) -> DeviceView:
    """One device with what it last said."""
    found = await services.registry.devices.get(device_id)
    if found is None:
        raise ContractError(DEVICE_UNKNOWN, f"there is no device {device_id}")
    models = await services.registry.spaces.models()
    return to_view(found, models, services.now(), silent_after(services.settings.heartbeat_seconds))


@router.patch("/devices/{device_id}", dependencies=[JSON_BODY])
async def calibrate(
    device_id: DeviceId, body: DevicePatch, services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]
) -> DeviceView:
    """Say how much a pixel of this camera shows, from which the heights of people follow."""
    devices = services.registry.devices
    await devices.calibrate(device_id, body.metres_per_pixel, by=key.name, now=services.now())
    return await show(device_id, services)


def to_view(device: DeviceRecord, models: Mapping[str, str], now: datetime, silence: timedelta) -> DeviceView:
    """Return the view of a device at `now`; `models` are the SHA-256 on record by space.

    No message carries a device's heartbeat interval, so `silence` follows from the configured one
    (`api.heartbeat_seconds`).
    """
    last_seen = device.last_seen
    return DeviceView(
        device_id=device.device_id,
        site_id=device.site_id,
        dev_mode=device.dev_mode,
        state=device.status.state if device.status else "never-seen",
        silent=last_seen is None or now - last_seen > silence,
        problems=problems(device, models),
        last_seen=last_seen,
        registered_at=device.registered_at,
        metres_per_pixel=device.metres_per_pixel,
        info=_shown(device.info),
        heartbeat=_shown(device.heartbeat),
        applied=_shown(device.applied),
    )


def problems(device: DeviceRecord, models: Mapping[str, str]) -> list[ProblemView]:
    """Return the problems that a device reports, and each of its models that differs from the registry's."""
    reported = [ProblemView(**problem) for problem in (device.heartbeat or {}).get("problems", ())]
    if any(problem.code == MODEL_DIFFERS for problem in reported):
        return reported
    return reported + [
        ProblemView(
            code=MODEL_DIFFERS,
            detail=f"its model file for {space} is {sha256[:12]}..., on record is {models[space][:12]}...",
        )
        for space, sha256 in sorted(device.declared_models.items())
        if sha256 != models.get(space, sha256)
    ]


def _shown(message: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if message is None:
        return None
    return {
        key: format_time(value) if isinstance(value, datetime) else value for key, value in message.items()
    }
