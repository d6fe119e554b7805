"""Replace a damaged database by a fresh one with what could be saved."""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from .connection import StoreConnection, StoreDamagedError, StoreError
from .salvage import salvage

_log = logging.getLogger(__name__)

_SIDE_FILES = ("-wal", "-shm")
_BLOCK = b"\0" * (1 << 20)


def open_or_repair(connection: StoreConnection) -> str | None:
    """Open the database; replace it first if it is damaged.

    Events, registrations and counters are saved as far as they can be read. The gallery syncs again. Returns
    a sentence about the damage while a damaged file lies beside the database, None otherwise. Raises
    StoreError for what is no damage: missing rights, a full disk, a file of newer software. If the damaged
    file's rows find no room on the disk, it waits aside for a start with more of it.
    """
    path = connection.path
    marked = path.with_name(f"{path.name}.marked")
    fresh = path.with_name(f"{path.name}.repaired")
    try:
        if fresh.exists() and not path.exists():
            # The power failed between the two renames of a repair.
            fresh.replace(path)
        if not path.exists():
            # It was moved away by hand; the mark is of no use without it.
            marked.unlink(missing_ok=True)
        reason = "it was found damaged while the device ran" if marked.exists() else None
        if reason is None:
            try:
                connection.open()
            except StoreDamagedError as error:
                reason = error.reason
        if reason is not None:
            sentence = _repair(path, fresh, reason)
            connection.open()
            marked.unlink(missing_ok=True)
            return sentence
        if _unsaved(path).exists():
            return _save_later(connection)
    except OSError as error:
        raise StoreError(f"{path}: is damaged and cannot be moved aside ({error.strerror})") from error
    aside = _aside(path)
    return f"a damaged database lies at {aside}: delete it once it is of no use" if aside.exists() else None


def mark_damaged(path: Path) -> None:
    """Have the next start replace the database, whatever its quick check says."""
    with suppress(OSError):
        path.with_name(f"{path.name}.marked").touch(mode=0o600)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _unsaved(path: Path) -> Path:
    """Return the name of a damaged file whose rows found no room yet."""
    return path.with_name(f"{path.name}.unsaved")


def _repair(path: Path, fresh: Path, reason: str) -> str:
    aside = _aside(path)
    try:
        copied, complete = _copy_readable(path, fresh)
    except (StoreError, OSError) as error:
        _remove(fresh)
        # One damaged file at most: it has templates, which an erasure does not reach.
        _remove(aside)
        waiting = _unsaved(path)
        waiting = aside if waiting.exists() else waiting
        _rename(path, waiting)
        _log.error("store damaged and begun anew; its rows find no room file=%s error=%r", path, str(error))
        return (
            f"the database was damaged ({reason}) and begun anew, and its events find no room on the disk: "
            f"they lie in {waiting}; free some space and start again"
        )
    _remove(aside)
    _rename(path, aside)
    fresh.replace(path)
    sentence = (
        f"the database was damaged ({reason}) and begun anew; {_saved(copied)}, the gallery syncs again"
    )
    _log.error("store damaged and begun anew file=%s reason=%r saved=%r", path, reason, copied)
    return sentence + _finish(aside, complete=complete)


def _copy_readable(path: Path, fresh: Path) -> tuple[dict[str, int], bool]:
    _remove(fresh)
    target = StoreConnection(fresh)
    target.open()
    try:
        with target.transaction() as sql:
            copied, complete = salvage(path, sql) if path.is_file() else ({}, False)
        target.truncate_log()
    finally:
        target.close()
    return copied, complete


def _save_later(connection: StoreConnection) -> str:
    """Copy the rows of a damaged file that found no room at an earlier start."""
    path = connection.path
    waiting, aside = _unsaved(path), _aside(path)
    try:
        with connection.transaction() as sql:
            copied, complete = salvage(waiting, sql, merge=True)
    except (StoreError, OSError) as error:
        _log.error(
            "store cannot save rows of a damaged file; free space file=%s error=%r", waiting, str(error)
        )
        return f"events of a damaged database lie in {waiting}: free space on the disk and start again"
    _remove(aside)
    _rename(waiting, aside)
    _log.warning("store saved rows of a damaged file file=%s saved=%r", waiting, copied)
    return f"a database was damaged earlier: {_saved(copied)}" + _finish(aside, complete=complete)


def _saved(copied: dict[str, int]) -> str:
    return f"{copied.get('outbox', 0)} waiting and {copied.get('rejected', 0)} rejected events were saved"


def _finish(aside: Path, *, complete: bool) -> str:
    """Delete a damaged file that was read to its end, or return what to do with it."""
    if complete:
        _remove(aside)
        return ""
    return f"; not everything could be read: the damaged file is {aside}, delete it once it is of no use"


def _rename(path: Path, name: Path) -> None:
    for suffix in _SIDE_FILES:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{name}{suffix}")
    path.replace(name)


def _remove(path: Path) -> None:
    """Delete a database, overwriting its bytes first."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    for file in (path, *(Path(f"{path}{suffix}") for suffix in _SIDE_FILES)):
        if not file.exists():
            continue
        with file.open("r+b") as opened:
            left = file.stat().st_size
            while left > 0:
                left -= opened.write(_BLOCK[: min(left, len(_BLOCK))])
            opened.flush()
            os.fsync(opened.fileno())
        file.unlink()
