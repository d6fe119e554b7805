"""The plan for one page of changes, decided at once.

It has everything that the sync manager does with the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from broker_bridge.contract.messages import SyncPage, SyncRequest, WireError
from device.store.cursor import SnapshotProgress, SyncCursor

from .applied_change import AppliedChange, plan_change

UNEXPECTED_PAGE = WireError(
    code="sync-page-unexpected", detail="the page does not continue from the device's version"
)


class PageStep(Enum):
    APPLY = "apply"
    BEGIN_SNAPSHOT = "begin-snapshot"
    EXTEND_SNAPSHOT = "extend-snapshot"
    SKIP = "skip"
    REJECT = "reject"


@dataclass(frozen=True)
class SyncState:
    """The position of a gallery before a page.

    `cursor` is of the live gallery, `cursor_at_request` the same when the page was requested. `snapshot` is
    the progress of a snapshot sync, `error` the one that the device reports now, `dimensions` are
    `{space: dimension}`.
    """

    cursor: SyncCursor
    cursor_at_request: SyncCursor
    snapshot: SnapshotProgress | None
    error: WireError | None
    dimensions: Mapping[str, int]


@dataclass(frozen=True)
class PagePlan:
    """The effect of a page on the gallery or on a snapshot sync.

    The plan takes the gallery, or the snapshot of a snapshot sync, by `change` to `cursor`. The progress
    of the snapshot sync after the page is `snapshot`; `swap` says whether the page completes it. With
    `requests_ahead` the page after `cursor` is requested before this one is applied. The device reports
    `error` from now on; a rejected page changes nothing else.
    """

    step: PageStep
    change: AppliedChange
    cursor: SyncCursor
    snapshot: SnapshotProgress | None = None
    requests_ahead: bool = False
    swap: bool = False
    error: WireError | None = None


def plan_page(state: SyncState, request: SyncRequest, page: SyncPage) -> PagePlan:
    """Return the plan for `page`, the answer to `request`."""
    step = _choose_step(state, request.since_version, page)
    cursor = move_cursor(state.cursor, page.epoch, page.to_version)
    if step is PageStep.REJECT:
        return PagePlan(step, AppliedChange((), ()), state.cursor, error=page.error or UNEXPECTED_PAGE)
    change = plan_change(page.upserts, page.removals, state.dimensions)
    snapshot, error = None, change.error
    if step is PageStep.BEGIN_SNAPSHOT:
        snapshot = SnapshotProgress(cursor, page.head_version)
    elif step is PageStep.EXTEND_SNAPSHOT and state.snapshot is not None:
        snapshot = SnapshotProgress(cursor, state.snapshot.head_version)
        error = state.error or error
    return PagePlan(
        step,
        change,
        cursor,
        snapshot,
        requests_ahead=not page.done and page.to_version > page.from_version and step is not PageStep.SKIP,
        swap=snapshot is not None and page.done and _may_swap(state, page),
        error=error,
    )


def _choose_step(state: SyncState, since_version: int, page: SyncPage) -> PageStep:
    """Return the step for a page that answers a request for `since_version`.

    An answer from version 0 is a snapshot whether it says so or not: only a snapshot sync drops identities
    that the pages do not name.
    """
    if page.error is not None:
        return PageStep.REJECT
    snapshot = state.snapshot.cursor if state.snapshot else None
    continues = snapshot and page.epoch == snapshot.epoch and 0 < page.from_version == snapshot.version
    if (page.reset and not continues) or (snapshot is None and since_version == 0):
        return PageStep.BEGIN_SNAPSHOT
    expected = snapshot or state.cursor
    if page.epoch != expected.epoch or page.from_version > expected.version:
        return PageStep.REJECT
    if snapshot is not None:
        return PageStep.EXTEND_SNAPSHOT
    return PageStep.APPLY if page.to_version > state.cursor.version else PageStep.SKIP


def _may_swap(state: SyncState, page: SyncPage) -> bool:
    """Return whether the last page of a snapshot completes it.

    A delta may have moved the live gallery past the snapshot; a swap would undo it for a moment. But if the
    live gallery was past the registry's head already at the request, the registry itself went back.
    """
    requested = state.cursor_at_request
    registry_went_back = requested.epoch == page.epoch and requested.version > page.head_version
    return registry_went_back or state.cursor.epoch != page.epoch or state.cursor.version <= page.to_version


def move_cursor(cursor: SyncCursor, epoch: str, version: int) -> SyncCursor:
    return replace(cursor, epoch=epoch, version=version)
