"""Routes of `/api/v1/spaces`: the records of embedding spaces, with their limits."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Response

from broker_bridge.contract.errors import SPACE_IN_USE, SPACE_UNKNOWN, ContractError
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.spaces import LimitsSource, SpaceRecord
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.space_usage import SpaceUse
from broker_bridge.registry.spaces import SpaceRegistry
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.problems import Problem
from dashboard_api.services.dependencies import (
    ClockDep,
    SettingsDep,
    SpaceRemovalDep,
    SpacesDep,
    SpaceUsageDep,
)
from dashboard_api.services.security import MAY_ADMINISTER, MAY_FOLLOW_WORK, MAY_READ
from dashboard_api.settings import ApiSettings

from .views import RemovedSpaceView, SpaceBody, SpaceList, SpaceView, to_record

router = APIRouter(prefix="/api/v1/spaces", tags=["spaces"])

_MANY_DEVICES = 5


@router.get("", operation_id="list_spaces_api_v1_spaces_get", dependencies=[MAY_READ])
async def list_spaces(spaces: SpacesDep, usage: SpaceUsageDep, settings: SettingsDep) -> SpaceList:
    """List the embedding spaces with their limits and their use, in order of name."""
    records, used = await spaces.records(), await usage.by_space()
    return SpaceList(items=[_to_view(records[space_id], used, settings) for space_id in sorted(records)])


@router.get("/{space}", operation_id="show_api_v1_spaces__space__get", dependencies=[MAY_FOLLOW_WORK])
async def show(space: SpaceId, spaces: SpacesDep, usage: SpaceUsageDep, settings: SettingsDep) -> SpaceView:
    """Show one embedding space with its limits and its use."""
    return _to_view(await _find(spaces, space), await usage.by_space(), settings)


@router.put(
    "/{space}",
    operation_id="put_api_v1_spaces__space__put",
    dependencies=[JSON_BODY],
    responses={201: {"model": SpaceView, "description": "Recorded"}},
)
async def record(
    *,
    space: SpaceId,
    body: SpaceBody,
    spaces: SpacesDep,
    usage: SpaceUsageDep,
    settings: SettingsDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_ADMINISTER],
    response: Response,
) -> SpaceView:
    """Record what makes the vectors of a space, and its limits.

    The record is replaced as a whole: what the body lacks is not on record any more. Cameras and trackers
    follow at once. Another dimension or model file is a 409 while vectors of the space are stored. Limits in
    the configuration (`registry.limits`) come before these.
    """
    new = to_record(space, body)
    if not space.startswith("face:") and (new.detector or new.alignment):
        raise Problem(422, "request-invalid", f"{space} has no faces: leave out detector and alignment")
    if new.limits is not None and new.source is None:
        source = LimitsSource(kind="configured", at=to_milliseconds(now()), note=f"by {key.name}"[:128])
        new = new.model_copy(update={"source": source})
    recorded, is_new = await spaces.put(new, by=key.name)
    response.status_code = 201 if is_new else 200
    return _to_view(recorded, await usage.by_space(), settings)


@router.delete("/{space}", operation_id="remove_api_v1_spaces__space__delete")
async def remove(
    *,
    space: SpaceId,
    spaces: SpacesDep,
    usage: SpaceUsageDep,
    removal: SpaceRemovalDep,
    settings: SettingsDep,
    key: Annotated[ApiKey, MAY_ADMINISTER],
) -> RemovedSpaceView:
    """Remove a space with everything in it.

    These are its record, all templates and the faces of detected persons. Cameras drop the templates by
    sync. The default space of a modality, and a space that a device declares, are a 409. A removal that
    was interrupted is continued by the next one.
    """
    await _find(spaces, space)
    _check_unused(space, (await usage.by_space()).get(space, SpaceUse()), settings)
    removed = await removal.remove(space, by=key.name)
    return RemovedSpaceView(
        space=space,
        templates=removed.templates,
        identities=removed.identities,
        detected_faces=removed.detected_faces,
    )


async def _find(spaces: SpaceRegistry, space: str) -> SpaceRecord:
    records = await spaces.records()
    if space not in records:
        raise Problem(404, SPACE_UNKNOWN, spaces.unknown(space, records).detail)
    return records[space]


def _check_unused(space: str, use: SpaceUse, settings: ApiSettings) -> None:
    """Raise ContractError(`space-in-use`) for a default or declared space."""
    if space in settings.default_spaces.values():
        detail = f"{space} is in api.default_spaces: give the API another default space first"
        raise ContractError(SPACE_IN_USE, detail)
    if use.devices:
        named = ", ".join(use.devices[:_MANY_DEVICES])
        more = f" and {len(use.devices) - _MANY_DEVICES} more" if len(use.devices) > _MANY_DEVICES else ""
        detail = f"{space} is declared by {named}{more}: give these another model, or decommission them first"
        raise ContractError(SPACE_IN_USE, detail)


def _to_view(record: SpaceRecord, used: Mapping[str, SpaceUse], settings: ApiSettings) -> SpaceView:
    use = used.get(record.space, SpaceUse())
    return SpaceView(
        space=record.space,
        dimension=record.dimension,
        model_sha256=record.model_sha256,
        detector=record.detector,
        alignment=record.alignment,
        limits=record.limits,
        source=record.source,
        templates=use.templates,
        identities=use.identities,
        devices=list(use.devices),
        default=record.space in settings.default_spaces.values(),
    )
