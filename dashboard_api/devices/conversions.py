"""Convert devices and their confirmed versions into views."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.contract.errors import DUPLICATE_ID, MODEL_DIFFERS, SITE_MISMATCH
from broker_bridge.contract.wire import format_time
from broker_bridge.registry.devices.model import AppliedVersion, DeviceRecord
from broker_bridge.registry.mongo.versions import History

from .views import DeviceSync, DeviceView, ProblemView, SyncStatusView

_DUPLICATE_SHOWN = timedelta(minutes=15)


def to_view(device: DeviceRecord, models: Mapping[str, str], now: datetime, silence: timedelta) -> DeviceView:
    """Return the view of a device at `now`.

    `models` are the SHA-256 on record by space. No message carries the heartbeat interval of a device, so
    `silence` follows from the configured one (`api.heartbeat_seconds`).
    """
    last_seen = device.last_seen
    duplicate, problems = _duplicate_id(device, now), _problems(device, models)
    if duplicate:
        # It names both addresses; the device knows the other one at most.
        problems = [problem for problem in problems if problem.code != DUPLICATE_ID]
    return DeviceView(
        device_id=device.device_id,
        site_id=device.site_id,
        dev_mode=device.dev_mode,
        state=device.status.state if device.status else "never-seen",
        silent=last_seen is None or now - last_seen > silence,
        problems=[*duplicate, *problems],
        last_seen=last_seen,
        registered_at=device.registered_at,
        metres_per_pixel=device.metres_per_pixel,
        info=_with_times(device.info),
        heartbeat=_with_times(device.heartbeat),
        applied=_with_times(device.applied),
        decommissioned_at=device.decommissioned_at,
    )


def _duplicate_id(device: DeviceRecord, now: datetime) -> list[ProblemView]:
    """Return the problem that two devices were seen under this id within 15 minutes."""
    duplicate = device.duplicate
    if duplicate is None or now - duplicate["at"] > _DUPLICATE_SHOWN:
        return []
    addresses = ", ".join(duplicate.get("addresses", ()))
    where = f" at {addresses}" if addresses else ""
    detail = f"two devices use this id in turns{where}: give one of them another WFM_DEVICE__ID"
    return [ProblemView(code=DUPLICATE_ID, detail=detail)]


def _problems(device: DeviceRecord, models: Mapping[str, str]) -> list[ProblemView]:
    """Return the reported problems, and each model other than the one on record."""
    reported = [ProblemView(**problem) for problem in (device.heartbeat or {}).get("problems", ())]
    named = (device.info or {}).get("site_id")
    if device.site_id is not None and named not in {None, device.site_id}:
        detail = (
            f"it is registered at site {device.site_id}, and its settings name site {named}: "
            f"set WFM_DEVICE__SITE={device.site_id} on it and start it again"
        )
        reported.append(ProblemView(code=SITE_MISMATCH, detail=detail))
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


def _with_times(message: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a message with its times as text."""
    if message is None:
        return None
    return {
        key: format_time(value) if isinstance(value, datetime) else value for key, value in message.items()
    }


def to_sync_status(
    history: History, applied: Sequence[AppliedVersion], heads: Mapping[str, int]
) -> SyncStatusView:
    """Compare each device with the newest version that concerns its site."""
    devices = [
        DeviceSync(
            device_id=device.device_id,
            site_id=device.site_id,
            epoch=device.epoch,
            version=device.version,
            applied_at=device.at,
            site_version=heads[device.site_id],
            up_to_date=device.confirms(history.epoch, heads[device.site_id]),
        )
        for device in applied
    ]
    up_to_date = sum(device.up_to_date for device in devices)
    return SyncStatusView(
        epoch=history.epoch,
        version=history.version,
        horizon=history.horizon,
        up_to_date=up_to_date,
        behind=len(devices) - up_to_date,
        devices=devices,
    )
