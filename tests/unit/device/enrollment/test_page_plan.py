"""The plan for a page of changes."""

from typing import Any

import pytest

from broker_bridge.contract.messages import SyncPage, SyncRequest, WireError
from device.enrollment.page_plan import UNEXPECTED_PAGE, PagePlan, PageStep, SyncState, plan_page
from device.store.cursor import SnapshotProgress, SyncCursor
from tests.device_samples import DIMENSION, SPACE, person

HEAD = 99
BAD_TEMPLATE = WireError(code="vector-invalid", detail="template t9 of A was left out")


def cursor(version: int, epoch: str = "aa") -> SyncCursor:
    return SyncCursor("lobby", (SPACE,), epoch, version)


def page(start: int, end: int, epoch: str = "aa", **fields: Any) -> SyncPage:
    defaults = {"request_id": "r", "head_version": HEAD, "reset": False, "done": False}
    return SyncPage(epoch=epoch, from_version=start, to_version=end, **{**defaults, **fields})


def plan(
    answer: SyncPage,
    since: int = 10,
    *,
    snapshot: int | None = None,
    live: int = 10,
    live_at_request: int | None = None,
    error: WireError | None = None,
) -> PagePlan:
    """Return the plan of a device with a live gallery at `live`.

    `snapshot` is the version of its snapshot sync, None without one.
    """
    state = SyncState(
        cursor=cursor(live),
        cursor_at_request=cursor(live if live_at_request is None else live_at_request),
        snapshot=None if snapshot is None else SnapshotProgress(cursor(snapshot), 50),
        error=error,
        dimensions={SPACE: DIMENSION},
    )
    request = SyncRequest(
        device_id="cam-001",
        request_id="r",
        site_id="lobby",
        epoch="aa",
        since_version=since,
        limit=200,
        spaces=[SPACE],
    )
    return plan_page(state, request, answer)


@pytest.mark.parametrize(
    ("snapshot", "since", "answer", "step"),
    [
        (None, 10, page(10, 15), PageStep.APPLY),
        (None, 8, page(8, 10), PageStep.SKIP),
        (None, 10, page(12, 15), PageStep.REJECT),
        (None, 10, page(10, 15, "bb"), PageStep.REJECT),
        (None, 10, page(0, 15, "bb", reset=True), PageStep.BEGIN_SNAPSHOT),
        (None, 0, page(0, 15), PageStep.BEGIN_SNAPSHOT),
        (5, 5, page(5, 9), PageStep.EXTEND_SNAPSHOT),
        (5, 5, page(5, 9, reset=True), PageStep.EXTEND_SNAPSHOT),
        (5, 5, page(0, 9, "bb", reset=True), PageStep.BEGIN_SNAPSHOT),
        (5, 5, page(7, 9), PageStep.REJECT),
    ],
)
def test_a_page_applies_or_belongs_to_a_snapshot_or_is_rejected(
    snapshot: int | None, since: int, answer: SyncPage, step: PageStep
) -> None:
    """A page with `reset`, or an answer from version 0, begins a snapshot."""
    assert plan(answer, since, snapshot=snapshot).step is step


def test_an_applied_page_moves_the_cursor_and_requests_the_next_page() -> None:
    """The next request continues from the page's last version, outside of a snapshot."""
    planned = plan(page(10, 15, upserts=[person("A", 15)]))
    assert (planned.cursor, planned.snapshot, planned.swap) == (cursor(15), None, False)
    assert planned.requests_ahead
    assert planned.change.upserts == (person("A", 15),)


@pytest.mark.parametrize(
    ("answer", "since"),
    [(page(10, 15, done=True), 10), (page(10, 10), 10), (page(8, 10), 8), (page(12, 15), 10)],
    ids=["last page", "empty page", "known page", "rejected page"],
)
def test_nothing_is_requested_ahead_of_a_last_or_unexpected_page(answer: SyncPage, since: int) -> None:
    """The device pauses after an empty or unexpected page.

    A last page has no next one.
    """
    assert not plan(answer, since).requests_ahead


def test_a_snapshot_keeps_the_head_of_its_first_page() -> None:
    """The registry decides by it whether the snapshot may continue below its horizon."""
    assert plan(page(0, 15, reset=True)).snapshot == SnapshotProgress(cursor(15), HEAD)
    assert plan(page(5, 9), 5, snapshot=5).snapshot == SnapshotProgress(cursor(9), 50)


@pytest.mark.parametrize(
    ("end", "live", "live_at_request", "swap"),
    [
        (20, 20, 20, True),
        (20, 10, 10, True),
        (20, 21, 20, False),
        (20, 120, 110, True),
    ],
    ids=["equal", "behind", "a delta came meanwhile", "the registry went back"],
)
def test_a_complete_snapshot_swaps_unless_the_live_gallery_is_newer(
    end: int, live: int, live_at_request: int, swap: bool
) -> None:
    """A swap does not undo a delta, but follows a registry that was restored."""
    last = page(5, end, done=True)
    assert plan(last, 5, snapshot=5, live=live, live_at_request=live_at_request).swap is swap
    assert not plan(page(5, end), 5, snapshot=5, live=live, live_at_request=live_at_request).swap


def test_a_rejected_page_reports_its_error_and_changes_nothing() -> None:
    """The page's own error precedes the error that the device finds."""
    failed = plan(page(10, 15, error=BAD_TEMPLATE, upserts=[person("A", 15)]))
    assert (failed.step, failed.error) == (PageStep.REJECT, BAD_TEMPLATE)
    assert failed.change.upserts == ()
    assert plan(page(12, 15)).error == UNEXPECTED_PAGE


def test_a_snapshot_keeps_its_first_error_and_a_page_outside_clears_it() -> None:
    """A device reports an invalid template until the snapshot is complete."""
    assert plan(page(5, 9), 5, snapshot=5, error=BAD_TEMPLATE).error == BAD_TEMPLATE
    assert plan(page(10, 15), error=BAD_TEMPLATE).error is None
    assert plan(page(0, 15, reset=True), error=BAD_TEMPLATE).error is None
