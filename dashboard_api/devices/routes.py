"""`/api/v1/devices`: who takes part, and how they are."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.errors import DEVICE_UNKNOWN, MODEL_DIFFERS, SITE_MISMATCH, ContractError
from broker_bridge.contract.ids import DeviceId, SiteId
from broker_bridge.contract.wire import format_time
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.devices import declared_models
from broker_bridge.registry.mongo.client import Document
from dashboard_api.devices.views import DeviceBody, DevicePage, DevicePatch, DeviceView, ProblemView
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, from_cursor, to_cursor
from dashboard_api.services.security import MAY_ADMINISTER, MAY_READ
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1", tags=["devices"])

SILENT_AFTER = timedelta(seconds=90)
"""Three heartbeats of 30 s."""


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
    shown = [to_view(document, models, now) for document in found[:limit]]
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
    return to_view(found, await services.registry.spaces.models(), services.now())


@router.patch("/devices/{device_id}", dependencies=[JSON_BODY])
async def calibrate(
    device_id: DeviceId, body: DevicePatch, services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]
) -> DeviceView:
    """Say how much a pixel of this camera shows, from which the heights of people follow."""
    devices = services.registry.devices
    await devices.calibrate(device_id, body.metres_per_pixel, by=key.name, now=services.now())
    return await show(device_id, services)


def to_view(found: Document, models: Mapping[str, str], now: datetime) -> DeviceView:
    """A device document as it is shown at `now`; `models` are the SHA-256 on record by space."""
    status = found.get("status")
    signs = [found.get("last_seen"), status and status["received_at"]]
    last_seen = max((sign for sign in signs if sign), default=None)
    return DeviceView(
        device_id=found["_id"],
        site_id=found.get("site_id"),
        dev_mode=found.get("dev_mode", False),
        state=status["state"] if status else "never-seen",
        silent=last_seen is None or now - last_seen > SILENT_AFTER,
        problems=problems(found, models),
        last_seen=last_seen,
        registered_at=found.get("registered_at"),
        metres_per_pixel=found.get("metres_per_pixel"),
        info=_shown(found.get("info")),
        heartbeat=_shown(found.get("heartbeat")),
        applied=_shown(found.get("applied")),
    )


def problems(found: Document, models: Mapping[str, str]) -> list[ProblemView]:
    """What a device says is wrong with it, and a model of its own that the registry knows to be another."""
    said = [ProblemView(**one) for one in (found.get("heartbeat") or {}).get("problems", ())]
    if any(problem.code == MODEL_DIFFERS for problem in said):
        return said
    return said + [
        ProblemView(
            code=MODEL_DIFFERS,
            detail=f"its model file for {space} is {sha256[:12]}..., on record is {models[space][:12]}...",
        )
        for space, sha256 in sorted(declared_models(found).items())
        if sha256 != models.get(space, sha256)
    ]


def _shown(said: Document | None) -> dict[str, Any] | None:
    if said is None:
        return None
    return {key: format_time(value) if isinstance(value, datetime) else value for key, value in said.items()}
