"""Routes of `/api/v1/commands`: queue commands for devices and follow them.

The bridge publishes queued commands.
"""

import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from broker_bridge.contract.commands import check_command
from broker_bridge.contract.errors import DEVICE_UNKNOWN, ContractError
from broker_bridge.contract.ids import DeviceId, RequestId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.commands import CommandRecord
from dashboard_api.devices.command_views import CommandBody, CommandPage, CommandView
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Limit, MomentCursor, cut_page, from_moment_cursor, to_moment_cursor
from dashboard_api.http.problems import not_found
from dashboard_api.services.dependencies import ClockDep, CommandsDep, DevicesDep
from dashboard_api.services.security import MAY_CHANGE, MAY_READ

router = APIRouter(prefix="/api/v1/commands", tags=["devices"])


@router.post("", status_code=202, dependencies=[JSON_BODY])
async def give(
    body: CommandBody,
    commands: CommandsDep,
    devices: DevicesDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_CHANGE],
) -> CommandView:
    """Queue a command for a device.

    It is published as soon as the device is online, unless it has expired by then.
    """
    check_command(body.name, body.args)
    if body.device_id not in await devices.registered([body.device_id]):
        raise ContractError(DEVICE_UNKNOWN, f"{body.device_id} is not registered")
    created_at = now()
    command = CommandRecord(
        command_id=f"cmd-{secrets.token_hex(8)}",
        device_id=body.device_id,
        name=body.name,
        args=dict(body.args),
        created_at=created_at,
        expires_at=created_at + timedelta(seconds=body.expires_in_seconds),
        requested_by=key.name,
    )
    await commands.enqueue(command)
    return _to_view(command)


@router.get("", dependencies=[MAY_READ])
async def list_commands(
    commands: CommandsDep,
    limit: Limit = 100,
    cursor: MomentCursor = None,
    device_id: Annotated[DeviceId | None, Query()] = None,
) -> CommandPage:
    """List commands, newest first."""
    found = await commands.page(device_id=device_id, before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(
        found, limit, lambda last: to_moment_cursor(last.created_at, last.command_id)
    )
    return CommandPage(items=[_to_view(command) for command in page], next_cursor=next_cursor)


@router.get("/{command_id}", dependencies=[MAY_READ])
async def show(command_id: RequestId, commands: CommandsDep) -> CommandView:
    """Show one command and its result."""
    found = await commands.get(command_id)
    if found is None:
        raise not_found(f"command {command_id}")
    return _to_view(found)


def _to_view(command: CommandRecord) -> CommandView:
    return CommandView(
        id=command.command_id,
        device_id=command.device_id,
        name=command.name,
        args=command.args,
        state=command.state,
        detail=command.detail,
        requested_by=command.requested_by,
        created_at=command.created_at,
        expires_at=command.expires_at,
        sent_at=command.sent_at,
        answered_at=command.answered_at,
    )
