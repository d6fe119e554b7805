"""From what devices that poll send to the registry's terms, and back. No I/O."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.channels import describe
from broker_bridge.contract.embeddings import to_base64
from broker_bridge.contract.errors import (
    EVENT_INVALID,
    EVENT_TIME_IMPLAUSIBLE,
    SPACE_UNKNOWN,
    ContractError,
)
from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import WireTime
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.events.attendance import Attendance, check_visit
from broker_bridge.registry.identities.model import Identity, IdentityDelta
from broker_bridge.registry.sync.polling import MARGIN, PollAnswer, PollCursor, TimeCursor, VersionCursor
from dashboard_api.http.problems import Problem

from .views import (
    AttendanceView,
    EdgeChanges,
    EdgeRemoval,
    EdgeTemplate,
    EdgeUpsert,
    SiteAttendance,
    VisitBody,
)

_TIME: TypeAdapter[datetime] = TypeAdapter(WireTime)
_DIGITS = re.compile(r"[0-9]{1,19}")
_BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
# As the bridge's: what lies further off is a clock that is wrong.
_OLDEST = timedelta(days=366)
_FUTURE = timedelta(days=1)
NO_SITE = "-"
"""In counts by site: events of devices that belonged to none. No site is called so."""


@dataclass(frozen=True)
class EdgeDevice:
    """The device of an API key, and the spaces that it has declared, if any."""

    device: Device
    spaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class SyncQuery:
    """What a device asks with GET /api/edge/sync; an empty `spaces` means what it has declared."""

    since: str
    epoch: str | None
    reset_head_version: int | None
    begun_at: int | None
    spaces: tuple[str, ...]
    vectors: bool
    limit: int

    @property
    def cursor(self) -> PollCursor:
        """Return the cursor of `since`, which is a version or a time. Raises Problem 422."""
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


def spaces_of(query: SyncQuery, caller: EdgeDevice, known: Mapping[str, int]) -> list[str]:
    """The spaces to tell of; raises ContractError(`space-unknown`) for one asked for that there is not."""
    for space in query.spaces:
        if space not in known:
            raise ContractError(SPACE_UNKNOWN, f"there is no embedding space {space}")
    if not query.vectors:
        return []
    return sorted(set(query.spaces) or set(caller.spaces) or set(known))


def to_changes(missed: PollAnswer, query: SyncQuery, device: Device, asked_at: datetime) -> EdgeChanges:
    """The answer to a device; `asked_at` is from before the registry was read."""
    told = missed.page
    changes = [_change(one, missed, query, device) for one in told.deltas]
    dated = [asked_at] if told.done or missed.last_dated is None else [asked_at, missed.last_dated]
    return EdgeChanges(
        success=True,
        changes=changes,
        deleted=[one.face_id for one in changes if isinstance(one, EdgeRemoval)],
        # Whoever goes on by time alone is told some of it twice, and misses nothing.
        sync_timestamp=min(dated) - MARGIN,
        version=told.to_version,
        epoch=told.history.epoch,
        reset=missed.reset,
        more=not told.done,
        next=None if told.done else _next(missed, query),
    )


def _change(
    change: IdentityDelta, missed: PollAnswer, query: SyncQuery, device: Device
) -> EdgeRemoval | EdgeUpsert:
    person = change.identity
    if not person.belongs_to(device.site_id):
        return EdgeRemoval(action="delete", face_id=person.user_id, version=person.version)
    said: dict[str, Any] = {}
    if device.dev_mode:
        said["name"] = person.display_name
    if query.vectors:
        said["templates"] = [
            EdgeTemplate(
                template_id=one.template_id,
                space=one.space,
                embedding=to_base64(one.vector),
                quality=one.quality,
            )
            for one in change.templates
        ]
    return EdgeUpsert(
        action="update" if person.user_id in missed.surely_held else "create",
        face_id=person.user_id,
        version=person.version,
        flag=person.flag,
        **said,
    )


def _next(missed: PollAnswer, query: SyncQuery) -> str:
    told = missed.page
    head = told.head_version if missed.reset else query.reset_head_version
    asked: list[tuple[str, object]] = [
        ("since", told.to_version),
        ("epoch", told.history.epoch),
        ("begun_at", missed.begun_at),
        ("limit", query.limit),
    ]
    if head is not None:
        asked.append(("reset_head_version", head))
    if query.spaces:
        asked.append(("spaces", ",".join(query.spaces)))
    if not query.vectors:
        asked.append(("vectors", "false"))
    return f"/api/edge/sync?{urlencode(asked)}"


def to_visit(item: Mapping[str, Any], device: Device, now: datetime) -> Event:
    """The `visit` event of one report; raises ContractError. Without an id it has one that follows from
    what it says, so that the same report is the same event."""
    try:
        body = VisitBody.model_validate(item)
    except ValidationError as error:
        raise ContractError(EVENT_INVALID, describe(error)) from error
    if not now - _OLDEST <= body.timestamp <= now + _FUTURE:
        raise ContractError(EVENT_TIME_IMPLAUSIBLE, "timestamp: far from now, check the device's clock")
    event_id = body.event_id
    if event_id is None:
        at_ms = (body.timestamp - _BEGINNING) // timedelta(milliseconds=1)
        said = f"{device.device_id}/{body.face_id}/{at_ms}"
        event_id = new_event_id(EVENT_CODES["visit"], at_ms, hashlib.sha256(said.encode()).hexdigest()[:12])
    elif not event_id.startswith(f"{EVENT_CODES['visit']}-"):
        raise ContractError(EVENT_INVALID, f"event_id: that of a visit begins with {EVENT_CODES['visit']}-")
    return Event(
        event_id=event_id,
        device_id=device.device_id,
        user_id=body.face_id,
        event_type="visit",
        timestamp=body.timestamp,
        confidence=body.confidence,
    )


def check_visitor(event: Event, people: Mapping[str, Identity], device: Device) -> None:
    """Raise ContractError where the visit cannot be that person's; see check_visit."""
    check_visit(people, event.user_id or "", device.site_id, event.timestamp)


def to_attendance(user_id: str, by_site: Mapping[str | None, Attendance]) -> AttendanceView:
    found: Sequence[Attendance] = list(by_site.values())
    return AttendanceView(
        user_id=user_id,
        visits=sum(one.visits for one in found),
        recognitions=sum(one.recognitions for one in found),
        first_at=min((one.first_at for one in found), default=None),
        last_at=max((one.last_at for one in found), default=None),
        by_site={
            site_id or NO_SITE: SiteAttendance(visits=one.visits, recognitions=one.recognitions)
            for site_id, one in sorted(by_site.items(), key=lambda item: item[0] or "")
        },
    )
