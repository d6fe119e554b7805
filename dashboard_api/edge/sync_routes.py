"""Routes of `/api/edge/sync` and `/api/edge/confirm`, for polling (seed 002)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from broker_bridge.contract.ids import Epoch
from broker_bridge.contract.messages import Version
from broker_bridge.contract.wire import MAX_PAGE_BYTES
from broker_bridge.registry.devices.reports import DeviceReport
from dashboard_api.edge.caller import CallerDep
from dashboard_api.edge.polling import SyncQuery, spaces_to_send, to_changes
from dashboard_api.edge.views import ConfirmBody, ConfirmView, EdgeChanges
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Limit
from dashboard_api.http.problems import Problem
from dashboard_api.services.dependencies import ClockDep, DevicesDep, EdgePollingDep, SpacesDep

router = APIRouter(prefix="/api/edge", tags=["edge"])


_VERSION_OR_TIME: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": "^[0-9]{1,18}$"}, {"type": "string", "format": "date-time"}]
}


def _split_spaces(
    spaces: Annotated[str | None, Query(max_length=1200, description="Separated by commas")] = None,
) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spaces.split(","))) if spaces else ()


@router.get("/sync", response_model_exclude_unset=True)
async def sync(
    *,
    caller: CallerDep,
    polling: EdgePollingDep,
    known_spaces: SpacesDep,
    now: ClockDep,
    spaces: Annotated[tuple[str, ...], Depends(_split_spaces)],
    since: Annotated[
        str,
        Query(
            max_length=64,
            description="`version` or `sync_timestamp` of the answer before",
            json_schema_extra=_VERSION_OR_TIME,
        ),
    ] = "0",
    epoch: Annotated[Epoch | None, Query(description="`epoch` of the answer before")] = None,
    reset_head_version: Annotated[Version | None, Query(description="As in `next`")] = None,
    begun_at: Annotated[Version | None, Query(description="As in `next`")] = None,
    limit: Limit = 200,
    vectors: Annotated[bool, Query(description="Include templates")] = True,
) -> EdgeChanges:
    """Get the changes of the device's site.

    Without `since` it is a snapshot sync. Continue with the path in `next`.
    """
    requested_at = now()
    history = await polling.history()
    epoch = caller.device.history_epoch(epoch, history.epoch)
    query = SyncQuery(since, epoch, reset_head_version, begun_at, spaces, vectors, limit)
    answer = await polling.poll(
        caller.device.device_id,
        caller.device.site_id,
        query.cursor,
        spaces_to_send(query, caller, await known_spaces.dimensions()),
        limit=limit,
        max_bytes=MAX_PAGE_BYTES,
        now=requested_at,
    )
    return to_changes(answer, query, caller.device, requested_at)


@router.post("/confirm", dependencies=[JSON_BODY])
async def confirm(
    body: ConfirmBody, caller: CallerDep, devices: DevicesDep, polling: EdgePollingDep, now: ClockDep
) -> ConfirmView:
    """Confirm that the device has applied all changes up to a version.

    Deletions up to it count as confirmed by the device.
    """
    device_id = caller.device.device_id
    history = await polling.history()
    if caller.device.history_epoch(body.epoch, history.epoch) != history.epoch:
        detail = "the registry has a new history: sync from the beginning, then confirm"
        raise Problem(409, "sync-epoch-changed", detail)
    if body.version > history.version:
        detail = f"the newest version is {history.version}: confirm a version that was received"
        raise Problem(409, "version-ahead", detail)
    if not await polling.may_confirm(device_id, history.epoch, body.version):
        detail = "no answer to this device had this version: sync, then confirm the version of the answer"
        raise Problem(409, "version-ahead", detail)
    applied = body.model_dump() | {"epoch": history.epoch}
    await devices.record_reports([DeviceReport.latest(device_id, "applied", applied, now())])
    return ConfirmView(device_id=device_id, epoch=body.epoch, version=body.version)
