"""Convert the query of a polling device into a cursor, and deltas into an answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.embeddings import to_base64
from broker_bridge.contract.errors import SPACE_UNKNOWN, ContractError
from broker_bridge.contract.wire import WireTime
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.identities.model import IdentityDelta
from broker_bridge.registry.sync.polling import MARGIN, PollAnswer, PollCursor, TimeCursor, VersionCursor
from dashboard_api.http.problems import Problem

from .caller import EdgeDevice
from .views import EdgeChanges, EdgeRemoval, EdgeTemplate, EdgeUpsert

_TIME: TypeAdapter[datetime] = TypeAdapter(WireTime)
_DIGITS = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True)
class SyncQuery:
    """The query of GET /api/edge/sync; empty `spaces` means the declared ones."""

    since: str
    epoch: str | None
    reset_head_version: int | None
    begun_at: int | None
    spaces: tuple[str, ...]
    vectors: bool
    limit: int

    @property
    def cursor(self) -> PollCursor:
        """The cursor of `since`, which is a version or a time; raises Problem 422."""
        if _DIGITS.fullmatch(self.since) and int(self.since) < 2**63:
            version = int(self.since)
            return VersionCursor(version, self.epoch, self.reset_head_version, self.begun_at)
        try:
            return TimeCursor(_TIME.validate_python(self.since), self.epoch)
        except ValidationError as error:
            detail = (
                "since: a version, or a time with its offset from UTC as in 2026-01-15T10:00:00.000Z (write "
                "+ as %2B): take `version` or `sync_timestamp` of the answer before"
            )
            raise Problem(422, "request-invalid", detail) from error


def spaces_to_send(query: SyncQuery, caller: EdgeDevice, known: Mapping[str, int]) -> list[str]:
    """Return the spaces of the templates to send; raise ContractError `space-unknown`."""
    for space in query.spaces:
        if space not in known:
            raise ContractError(SPACE_UNKNOWN, f"there is no embedding space {space}")
    if not query.vectors:
        return []
    return sorted(set(query.spaces) or set(caller.spaces) or set(known))


def to_changes(answer: PollAnswer, query: SyncQuery, device: Device, requested_at: datetime) -> EdgeChanges:
    """Return the answer to a device.

    `requested_at` is from before the registry was read.
    """
    page = answer.page
    changes = [_to_change(delta, answer, query, device) for delta in page.deltas]
    covered_until = requested_at
    if not page.done and answer.last_dated is not None:
        covered_until = min(requested_at, answer.last_dated)
    return EdgeChanges(
        success=True,
        changes=changes,
        deleted=[change.face_id for change in changes if isinstance(change, EdgeRemoval)],
        # A device that continues by time gets some changes twice and misses none.
        sync_timestamp=covered_until - MARGIN,
        version=page.to_version,
        epoch=device.own_epoch(page.history.epoch),
        reset=answer.reset,
        more=not page.done,
        next=None if page.done else _next_path(answer, query, device),
    )


def _to_change(
    delta: IdentityDelta, answer: PollAnswer, query: SyncQuery, device: Device
) -> EdgeRemoval | EdgeUpsert:
    identity = delta.identity
    if not identity.belongs_to(device.site_id):
        return EdgeRemoval(action="delete", face_id=identity.user_id, version=identity.version)
    fields: dict[str, Any] = {}
    if device.dev_mode:
        fields["name"] = identity.display_name
    if query.vectors:
        fields["templates"] = [
            EdgeTemplate(
                template_id=template.template_id,
                space=template.space,
                embedding=to_base64(template.vector),
                quality=template.quality,
            )
            for template in delta.templates
        ]
    return EdgeUpsert(
        action="update" if identity.user_id in answer.surely_held else "create",
        face_id=identity.user_id,
        version=identity.version,
        flag=identity.flag,
        **fields,
    )


def _next_path(answer: PollAnswer, query: SyncQuery, device: Device) -> str:
    page = answer.page
    head = page.head_version if answer.reset else query.reset_head_version
    parameters: list[tuple[str, object]] = [
        ("since", page.to_version),
        ("epoch", device.own_epoch(page.history.epoch)),
        ("begun_at", answer.begun_at),
        ("limit", query.limit),
    ]
    if head is not None:
        parameters.append(("reset_head_version", head))
    if query.spaces:
        parameters.append(("spaces", ",".join(query.spaces)))
    if not query.vectors:
        parameters.append(("vectors", "false"))
    return f"/api/edge/sync?{urlencode(parameters)}"
