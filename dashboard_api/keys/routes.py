"""Routes of `/api/v1/keys`: list, create and revoke API keys."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path

from broker_bridge.contract.errors import DEVICE_UNKNOWN, ContractError
from broker_bridge.registry.api_keys import ApiKey, ApiKeyRecord
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Limit, MomentCursor, cut_page, from_moment_cursor, to_moment_cursor
from dashboard_api.http.problems import Problem
from dashboard_api.keys.views import KeyBody, KeyCreatedView, KeyPage, KeyRecordView
from dashboard_api.services.dependencies import ApiKeysDep, ClockDep, DevicesDep
from dashboard_api.services.security import MAY_ADMINISTER

router = APIRouter(prefix="/api/v1/keys", tags=["keys"])

KeyId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{16}$", description="`key_id` in the list of keys", examples=["4f1c09a27be35d68"]
    ),
]


@router.get("", dependencies=[MAY_ADMINISTER])
async def list_keys(
    keys: ApiKeysDep, now: ClockDep, limit: Limit = 100, cursor: MomentCursor = None
) -> KeyPage:
    """List API keys, newest first.

    Revoked and expired keys stay in the list. The text of a key is never shown.
    """
    found = await keys.page(before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(
        found, limit, lambda last: to_moment_cursor(last.created_at, last.key.key_id)
    )
    at = now()
    return KeyPage(items=[KeyRecordView(**_fields(record, at)) for record in page], next_cursor=next_cursor)


@router.post("", status_code=201, dependencies=[JSON_BODY])
async def create_key(
    body: KeyBody,
    keys: ApiKeysDep,
    devices: DevicesDep,
    now: ClockDep,
    author: Annotated[ApiKey, MAY_ADMINISTER],
) -> KeyCreatedView:
    """Create an API key.

    The answer is the only one that has the text of the key: the registry keeps its hash alone.
    """
    at = now()
    if body.expires_at is not None and body.expires_at <= at:
        raise Problem(422, "request-invalid", "expires_at: expected a time in the future")
    if body.device_id is not None and body.device_id not in await devices.registered([body.device_id]):
        raise ContractError(DEVICE_UNKNOWN, "device_id: register the device under /api/v1/devices first")
    text, record = await keys.issue(
        body.name, body.role, device_id=body.device_id, expires_at=body.expires_at, by=author.name
    )
    return KeyCreatedView(**_fields(record, at), key=text)


@router.delete("/{key_id}")
async def revoke_key(
    key_id: KeyId, keys: ApiKeysDep, now: ClockDep, author: Annotated[ApiKey, MAY_ADMINISTER]
) -> KeyRecordView:
    """Revoke an API key for good.

    Within a second it stops working in every process, and its live streams and transfers end. A revoked key
    stays as it is. The last admin key that works cannot be revoked: `409 last-admin-key`.
    """
    at = now()
    return KeyRecordView(**_fields(await keys.revoke(key_id, by=author.name, at=at), at))


def _fields(record: ApiKeyRecord, at: datetime) -> dict[str, Any]:
    return {
        **vars(record.key),
        "state": record.state(at),
        "created_at": record.created_at,
        "revoked_at": record.revoked_at,
        "last_used_at": record.last_used_at,
    }
