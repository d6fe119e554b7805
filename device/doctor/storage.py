"""Check the data folder: free space, write access and its database."""

import tempfile
from pathlib import Path

from pydantic import JsonValue

from device.bootstrap import AlreadyRunningError, sole_owner
from device.management.system import read_system
from device.store.connection import StoreError
from device.store.inspection import StoreInspection, inspect_store

from .check import CheckResult

_LEAST_FREE_MB = 200.0
_BLOCK = b"\0" * 4096


def is_in_use(data_dir: Path) -> bool | None:
    """Return whether a device runs on `data_dir`; None if the folder is not writable."""
    if not data_dir.exists():
        return False
    try:
        with sole_owner(data_dir):
            return False
    except AlreadyRunningError:
        return True
    except StoreError:
        return None


def check_disk(data_dir: Path, database: Path, outbox_mb: int) -> CheckResult:
    """Check free space, a write to the disk, and the database.

    `outbox_mb` is the space that events may take.
    """
    values: dict[str, JsonValue] = {"folder": str(data_dir)}
    existing = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.exists())
    free = read_system(existing).disk_free_mb
    values["free_mb"] = free
    try:
        with tempfile.TemporaryFile(dir=existing, buffering=0) as probe:
            probe.write(_BLOCK)
    except OSError as error:
        return CheckResult(
            "disk",
            "fault",
            f"{existing} cannot be written to ({error.strerror}); {_megabytes(free)} free",
            "set WFM_DEVICE__DATA_DIR to a folder with free space that this user may write",
            values,
        )
    if not database.exists():
        detail = f"{data_dir}: {_megabytes(free)} free, no database yet (the first start creates it)"
        return _space_result(detail, free, outbox_mb, None, values)
    try:
        with inspect_store(database) as store:
            return _check_database(store, data_dir, free, outbox_mb, values)
    except StoreError as error:
        return CheckResult("disk", "fault", str(error), _DAMAGED, values)


_DAMAGED = (
    "move the database aside and start again: the gallery syncs again, `sqlite3 FILE .recover` reads events"
)


def _check_database(
    store: StoreInspection, data_dir: Path, free: float | None, outbox_mb: int, values: dict[str, JsonValue]
) -> CheckResult:
    damage = store.damage()
    if damage is not None:
        return CheckResult(
            "disk", "fault", f"{data_dir}: the database is damaged ({damage})", _DAMAGED, values
        )
    written, known = store.schemas()
    if written > known:
        detail = f"{data_dir}: newer software wrote the database (schema {written}, known is {known})"
        return CheckResult("disk", "fault", detail, "install that software, or use another folder", values)
    in_use = is_in_use(data_dir)
    depth, rejected = store.outbox_depth(), store.rejected_count()
    values.update(outbox_depth=depth, rejected=rejected, in_use=in_use, schema=written)
    detail = (
        f"{data_dir}: {_megabytes(free)} free, the database is sound, {depth} events wait, "
        f"{rejected} were rejected{', a device runs on it' if in_use else ''}"
    )
    advice = "`wfm-device rejected list` shows them with reasons" if rejected else None
    return _space_result(detail, free, outbox_mb, advice, values)


def _space_result(
    detail: str, free: float | None, outbox_mb: int, advice: str | None, values: dict[str, JsonValue]
) -> CheckResult:
    if free is not None and free < max(_LEAST_FREE_MB, outbox_mb):
        advice = f"free space, or lower WFM_DEVICE__OUTBOX_MB ({outbox_mb}): an outage may drop events"
    return CheckResult("disk", "warning" if advice else "ok", detail, advice, values)


def _megabytes(value: float | None) -> str:
    return "unknown space" if value is None else f"{value:,.0f} MB"
