"""Request and response bodies of `/api/v1/commands`."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue

from broker_bridge.contract.commands import CommandState
from broker_bridge.contract.ids import DeviceId
from broker_bridge.contract.wire import OpenDocument
from dashboard_api.http.base_models import Body, Time, View, Whole

MAX_ARGS_BYTES = 16 * 1024
_NAMES: dict[str, Any] = {
    "minLength": 1,
    "maxLength": 128,
    "pattern": r"^[^\x00]*$",
    "not": {"const": "$ref"},
}
"""The names in an open document."""


def _check_size(args: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        size = len(json.dumps(args, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a surrogate pair, which is no character") from error
    if size > MAX_ARGS_BYTES:
        raise ValueError(f"the arguments of a command have at most {MAX_ARGS_BYTES} bytes as JSON")
    return args


class CommandBody(Body):
    device_id: DeviceId
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    args: Annotated[OpenDocument, AfterValidator(_check_size)] = Field(
        default_factory=dict,
        json_schema_extra={"propertyNames": _NAMES},
    )
    expires_in_seconds: Annotated[int, Field(ge=1, le=7 * 86_400), Whole] = 60


class CommandView(View):
    """A command and its state.

    `waiting`: the device is offline, the command is not published yet. `sent`: published and not answered
    yet. Every other state is the answer of the device.
    """

    id: str
    device_id: str
    name: str
    args: dict[str, Any]
    state: CommandState
    detail: str | None
    requested_by: str
    created_at: Time
    expires_at: Time
    sent_at: Time | None
    answered_at: Time | None


class CommandPage(View):
    items: list[CommandView]
    next_cursor: str | None
