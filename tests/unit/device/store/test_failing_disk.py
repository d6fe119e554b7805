"""A disk that takes no events: they are sent from memory, and written down later."""

import json
import logging
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.contract.messages import Rejection
from device.store.connection import StoreConnection
from device.store.outbox import Outbox
from tests.device_samples import Clock, event, seeded

JPEG = b"\xff\xd8" + bytes(20_000) + b"\xff\xd9"
MEBIBYTE = 1024 * 1024
Fault = Callable[[StoreConnection], AbstractContextManager[None]]


@contextmanager
def full(connection: StoreConnection) -> Iterator[None]:
    """Let the file not grow by a page; deletions succeed."""
    with connection.reading() as sql:
        before = sql.execute("PRAGMA max_page_count").fetchone()[0]
        pages = sql.execute("PRAGMA page_count").fetchone()[0]
        sql.execute(f"PRAGMA max_page_count = {pages}")
    yield
    with connection.reading() as sql:
        sql.execute(f"PRAGMA max_page_count = {before}")


@contextmanager
def read_only(connection: StoreConnection) -> Iterator[None]:
    with connection.reading() as sql:
        sql.execute("PRAGMA query_only = ON")
    yield
    with connection.reading() as sql:
        sql.execute("PRAGMA query_only = OFF")


class BrokenDisk:
    """A connection without a disk behind it."""

    in_transaction = False

    def execute(self, *_: object) -> sqlite3.Cursor:
        raise sqlite3.OperationalError("disk I/O error")


@contextmanager
def broken(connection: StoreConnection) -> Iterator[None]:
    real = connection._connection
    connection._connection = BrokenDisk()  # type: ignore[assignment]
    try:
        yield
    finally:
        connection._connection = real


FAULTS = [full, read_only, broken]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[StoreConnection]:
    store = StoreConnection(tmp_path / "device.db")
    store.open()
    yield store
    store.close()


def new(connection: StoreConnection, clock: Clock, **options: int) -> Outbox:
    return Outbox(connection, utc_now=clock.utc_now, source=seeded(), clock=clock, **options)


def send_due(outbox: Outbox, clock: Clock) -> list[tuple[int, bool]]:
    """Send what is due; return number and `replayed` of each event."""
    due = outbox.due(clock(), 50)
    for pending in due:
        outbox.mark_sent(pending, clock())
    return [numbered(json.loads(pending.payload)) for pending in due]


def numbered(payload: dict[str, Any]) -> tuple[int, bool]:
    return NUMBERS[payload["event_id"]], payload["metadata"]["replayed"]


NUMBERS = {event(number).event_id: number for number in range(200)}


def ids(*numbers: int) -> list[str]:
    return [event(number).event_id for number in numbers]


def stored(connection: StoreConnection) -> set[int]:
    with connection.reading() as sql:
        return {NUMBERS[event_id] for (event_id,) in sql.execute("SELECT event_id FROM outbox")}


@pytest.mark.parametrize("fault", FAULTS)
def test_events_are_sent_from_memory_while_the_disk_takes_none(
    connection: StoreConnection, clock: Clock, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Receipts settle them; the rest is written down, in order and once."""
    outbox = new(connection, clock)
    outbox.put(event(1))
    assert outbox.depth == 1
    caplog.set_level(logging.INFO)
    with fault(connection):
        for number in range(2, 6):
            outbox.put(event(number), JPEG)
            outbox.put(event(number), JPEG)
            clock.advance(3)
        assert outbox.problem is not None
        assert outbox.problem.code == "store-failed"
        assert outbox.problem.detail.startswith("4 events are in memory only")
        assert outbox.depth == 5
        sent = send_due(outbox, clock)
        assert sent[-4:] == [(number, False) for number in range(2, 6)]
        assert sent[:-4] == ([] if fault is broken else [(1, False)])
        outbox.settle(ids(2, 3) if fault is broken else ids(2, 3, 99))
        assert outbox.depth == 3
        assert send_due(outbox, clock) == []
    clock.advance(3)
    # Now they are on disk, and what was sent from memory counts as sent.
    new_ones = [number for number, replayed in send_due(outbox, clock) if not replayed]
    assert new_ones == ([1] if fault is broken else [])
    assert (outbox.problem, outbox.depth, stored(connection)) == (None, 3, {1, 4, 5})
    clock.advance(1000)
    assert sorted(send_due(outbox, clock)) == [(1, True), (4, True), (5, True)]
    outbox.settle(ids(1, 4, 5))
    assert (outbox.depth, stored(connection)) == (0, set())
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.parametrize("fault", [read_only, broken])
def test_a_settled_event_is_not_sent_again_while_it_cannot_be_deleted(
    connection: StoreConnection, clock: Clock, fault: Fault
) -> None:
    """It is deleted when the disk works again."""
    outbox = new(connection, clock)
    for number in range(1, 4):
        outbox.put(event(number))
    send_due(outbox, clock)
    assert outbox.depth == 3
    with fault(connection):
        rejection = Rejection(event_id=ids(2)[0], code="event-invalid", detail="no")
        assert [outbox.settle(ids(1)) for _ in range(2)] == [1, 0]
        assert [outbox.reject([rejection]) for _ in range(2)] == [1, 0]
        clock.advance(1000)
        assert send_due(outbox, clock) == ([] if fault is broken else [(3, True)])
        assert (outbox.depth, outbox.rejected_count) == (1, 1)
    clock.advance(1000)
    send_due(outbox, clock)
    assert stored(connection) == {3}
    assert [rejected.event_id for rejected in outbox.rejected()] == ids(2)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_event_that_is_rejected_from_memory_is_kept_later(
    connection: StoreConnection, clock: Clock, fault: Fault
) -> None:
    """It stands among the rejected ones, with its image, and can be queued again."""
    outbox = new(connection, clock)
    with fault(connection):
        outbox.put(event(1), JPEG)
        send_due(outbox, clock)
        outbox.reject([Rejection(event_id=ids(1)[0], code="event-conflict", detail="no")])
        assert outbox.depth == 0
    clock.advance(3)
    assert send_due(outbox, clock) == []
    assert [(each.event_id, each.code) for each in outbox.rejected()] == [(ids(1)[0], "event-conflict")]
    assert outbox.requeue(ids(1)) == 1
    assert send_due(outbox, clock) == [(1, False)]


def test_rows_before_those_from_memory_are_sent_too(connection: StoreConnection, clock: Clock) -> None:
    """A small window lets some go out from memory while older ones wait on disk."""
    outbox = new(connection, clock, window=3)
    for number in range(1, 6):
        outbox.put(event(number))
    sent = []
    with full(connection):
        for number in range(6, 9):
            outbox.put(event(number))
        sent += send_due(outbox, clock)
        outbox.settle(ids(1, 2))
    clock.advance(3)
    outbox.put(event(9))
    for _ in range(20):
        sent += send_due(outbox, clock)
        outbox.settle(ids(*(number for number, _ in sent)))
        clock.advance(1)
    assert sorted(sent) == [(number, False) for number in range(1, 10)]
    assert outbox.depth == 0


def test_memory_is_bounded_and_drops_are_counted(connection: StoreConnection, clock: Clock) -> None:
    """Images go first, oldest events last; the counts reach the disk with the rest."""
    outbox = new(connection, clock, memory_bytes=65_000)
    with full(connection):
        for number in range(1, 101):
            outbox.put(event(number), JPEG)
        assert outbox.images_dropped == 99
        assert outbox.events_dropped == 0
        for number in range(101, 181):
            outbox.put(event(number))
        assert outbox.images_dropped == 100
        dropped = outbox.events_dropped
        assert 0 < dropped < 100
        assert outbox.depth == 180 - dropped
    clock.advance(3)
    outbox.put(event(190))
    assert stored(connection) == {*range(dropped + 1, 181), 190}
    again = new(connection, clock)
    assert (again.images_dropped, again.events_dropped) == (100, dropped)


def test_what_is_in_memory_only_is_lost_with_the_program(connection: StoreConnection, clock: Clock) -> None:
    """The problem in the heartbeat says so."""
    outbox = new(connection, clock)
    outbox.put(event(1))
    with read_only(connection):
        outbox.put(event(2))
        assert outbox.problem is not None
        assert "lost if the program ends" in outbox.problem.detail
    again = new(connection, clock)
    assert [number for number, _ in send_due(again, clock)] == [1]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_receipts_free_a_disk_that_is_really_full(connection: StoreConnection, clock: Clock) -> None:
    """No file may grow: every event is sent and settled once, and none is lost."""
    outbox = new(connection, clock)
    for number in range(1, 11):
        outbox.put(event(number), JPEG)
    log = connection.path.with_name("device.db-wal")
    sent: list[int] = []
    with file_limit(max(log.stat().st_size, connection.path.stat().st_size)):
        for number in range(11, 31):
            outbox.put(event(number), JPEG)
        assert outbox.problem is not None
        for _ in range(40):
            numbers = [number for number, _ in send_due(outbox, clock)]
            sent += numbers
            outbox.settle(ids(*numbers))
            clock.advance(3)
        assert (outbox.depth, stored(connection)) == (0, set())
    assert sorted(sent) == list(range(1, 31))
    assert (outbox.problem, outbox.events_dropped, outbox.images_dropped) == (None, 0, 0)
