"""The outbox: stored before it is sent, and deleted with the receipt."""

import base64
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broker_bridge.contract.channels import EVENT
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Rejection
from broker_bridge.contract.wire import MAX_UP_BYTES, decode_image
from device.store.connection import StoreConnection
from device.store.outbox import Outbox
from tests.device_samples import Clock, event, seeded

JPEG = b"\xff\xd8" + bytes(2000) + b"\xff\xd9"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connection(tmp_path: Path) -> StoreConnection:
    store = StoreConnection(tmp_path / "device.db")
    store.open()
    return store


def new(connection: StoreConnection, clock: Clock, **options: int) -> Outbox:
    return Outbox(connection, utc_now=clock.utc_now, source=seeded(), **options)


@pytest.fixture
def outbox(connection: StoreConnection, clock: Clock) -> Outbox:
    return new(connection, clock)


def send_due(outbox: Outbox, now: float, limit: int = 50) -> list[dict]:
    """Send everything due as the client does; return the payloads."""
    due = outbox.due(now, limit)
    for pending in due:
        outbox.mark_sent(pending, now)
    return [json.loads(pending.payload) for pending in due]


def test_an_event_is_committed_when_put_returns(connection: StoreConnection, outbox: Outbox) -> None:
    """Another connection to the file reads it."""
    outbox.put(event(1), JPEG)
    with sqlite3.connect(connection.path) as reader:
        assert reader.execute("SELECT event_id, image FROM outbox").fetchall() == [(event(1).event_id, JPEG)]


def test_events_go_out_oldest_first_with_their_image(outbox: Outbox, clock: Clock) -> None:
    """The payload is the event of the wire."""
    for number in (3, 1, 2):
        outbox.put(event(number), JPEG if number == 1 else None)
    due = outbox.due(clock(), 50)
    events = [EVENT.decode(pending.payload) for pending in due]
    assert [event.event_id for event in events] == [event(n).event_id for n in (3, 1, 2)]
    assert [event.image for event in events] == [None, base64.b64encode(JPEG).decode(), None]
    assert events[0].metadata == {"distance": 0.28, "replayed": False}


def test_an_image_inside_the_event_is_stored(outbox: Outbox, clock: Clock) -> None:
    """It is stored as bytes and sent as base64."""
    outbox.put(event(1, image=base64.b64encode(JPEG).decode()))
    [payload] = send_due(outbox, clock())
    assert decode_image(payload["image"]) == JPEG


def test_a_repeated_event_is_stored_once(outbox: Outbox) -> None:
    """An id names one event."""
    outbox.put(event(1))
    outbox.put(event(1))
    assert outbox.depth == 1


def test_a_too_large_event_is_refused_before_storing(outbox: Outbox, clock: Clock) -> None:
    """The limit is the exact size on the wire, with base64 and `replayed`."""
    room = MAX_UP_BYTES - len(_sized(outbox, clock, 2))
    largest = (2 + room) // 4 * 4 // 4 * 3
    with pytest.raises(ContractError) as refused:
        outbox.put(event(2), b"\xff\xd8" + bytes(largest + 3))
    assert refused.value.code == "payload-too-large"
    assert outbox.depth == 0
    outbox.put(event(2), b"\xff\xd8" + bytes(largest - 8))
    [due] = outbox.due(clock(), 1)
    assert MAX_UP_BYTES - 20 < len(due.payload) <= MAX_UP_BYTES


def _sized(outbox: Outbox, clock: Clock, image_bytes: int) -> bytes:
    outbox.put(event(1), b"\xff\xd8"[:image_bytes])
    [due] = outbox.due(clock(), 1)
    outbox.settle([due.event_id])
    return due.payload


def test_a_receipt_settles_its_event(outbox: Outbox, clock: Clock) -> None:
    """A repeated receipt and unknown ids have no effect, and count nothing."""
    for number in (1, 2):
        outbox.put(event(number))
    send_due(outbox, clock())
    receipt = [event(1).event_id, event(1).event_id, event(99).event_id]
    assert [outbox.settle(receipt) for _ in range(2)] == [1, 0]
    assert outbox.depth == 1
    clock.advance(1000)
    assert [pending["event_id"] for pending in send_due(outbox, clock())] == [event(2).event_id]


def test_an_event_without_a_receipt_is_sent_again_as_replayed(outbox: Outbox, clock: Clock) -> None:
    """The first repeat comes after 2 to 4 s, later ones at the latest after 5 min."""
    outbox.put(event(1))
    assert [pending["metadata"]["replayed"] for pending in send_due(outbox, clock())] == [False]
    waits = []
    for _ in range(14):
        following = outbox.next_due()
        assert following is not None
        waits.append(following - clock())
        assert outbox.due(following - 0.001, 50) == []
        clock.advance(waits[-1])
        assert [pending["metadata"]["replayed"] for pending in send_due(outbox, clock())] == [True]
    assert 2 <= waits[0] <= 4
    assert all(2 <= wait <= 300 for wait in waits)
    assert max(waits) > 60


def test_a_restart_makes_every_event_due_as_replayed(
    connection: StoreConnection, outbox: Outbox, clock: Clock
) -> None:
    """The earlier process may have sent some of them."""
    outbox.put(event(1))
    outbox.put(event(2))
    send_due(outbox, clock(), limit=1)

    again = new(connection, clock)
    again.put(event(3))

    assert [pending["metadata"]["replayed"] for pending in send_due(again, clock())] == [True, True, False]


def test_a_new_connection_makes_unanswered_events_due(outbox: Outbox, clock: Clock) -> None:
    """Many events are spread over a moment, and none is later than it was due."""
    for number in range(150):
        outbox.put(event(number))
    assert len(send_due(outbox, clock(), 200)) == 150
    outbox.reconnected(clock())
    at_once = send_due(outbox, clock(), 200)
    clock.advance(2.0)
    soon = send_due(outbox, clock(), 200)
    assert len(at_once) < 20
    assert len(at_once) + len(soon) >= 150


def send_until_pauses_are_long(outbox: Outbox, clock: Clock) -> None:
    """Send what is due until the next repeat is more than a minute away."""
    while True:
        send_due(outbox, clock())
        following = outbox.next_due()
        assert following is not None
        if following - clock() > 60:
            return
        clock.advance(following - clock())


@pytest.mark.parametrize("come_back", [Outbox.reconnected, Outbox.answered])
def test_repeats_begin_anew_when_the_broker_or_the_bridge_comes_back(
    outbox: Outbox, clock: Clock, come_back: Callable[[Outbox, float], None]
) -> None:
    """After a long outage events settle at once, and a lost repeat follows soon."""
    outbox.put(event(1))
    send_until_pauses_are_long(outbox, clock)
    come_back(outbox, clock())
    clock.advance(0.01)
    assert len(send_due(outbox, clock())) == 1
    following = outbox.next_due()
    assert following is not None
    assert 2 <= following - clock() <= 4


def test_an_event_that_the_bridge_cannot_read_keeps_its_pauses(outbox: Outbox, clock: Clock) -> None:
    """Other events get receipts every few seconds meanwhile."""
    outbox.put(event(1))
    outbox.answered(clock())
    sent = 0
    for _ in range(600):
        clock.advance(1.0)
        outbox.answered(clock())
        sent += len(send_due(outbox, clock()))
    assert sent < 15


def test_a_receipt_does_not_repeat_events_that_were_just_sent(outbox: Outbox, clock: Clock) -> None:
    """A burst of receipts after a silence makes each event due once."""
    for number in range(20):
        outbox.put(event(number))
    send_until_pauses_are_long(outbox, clock)
    for _ in range(20):
        outbox.answered(clock())
    clock.advance(0.2)
    assert len(send_due(outbox, clock())) == 20
    for _ in range(20):
        outbox.answered(clock())
    assert send_due(outbox, clock()) == []


def test_a_window_limits_the_events_without_receipts(connection: StoreConnection, clock: Clock) -> None:
    """New events wait until receipts arrive."""
    outbox = new(connection, clock, window=10)
    for number in range(30):
        outbox.put(event(number))
    assert len(send_due(outbox, clock())) == 10
    assert send_due(outbox, clock()) == []
    outbox.settle([event(n).event_id for n in range(4)])
    assert len(send_due(outbox, clock())) == 4


def test_events_without_any_receipt_do_not_block_the_others(
    connection: StoreConnection, clock: Clock
) -> None:
    """After several sends they no longer count against the window."""
    outbox = new(connection, clock, window=5)
    for number in range(10):
        outbox.put(event(number))
    seen = set()
    for _ in range(10):
        seen |= {pending["event_id"] for pending in send_due(outbox, clock())}
        clock.advance(300)
    assert len(seen) == 10


def test_a_rejected_event_can_be_queued_again(outbox: Outbox, clock: Clock) -> None:
    """It keeps image, code and detail; a rejection of an unknown id has no effect."""
    outbox.put(event(1), JPEG)
    send_due(outbox, clock())
    outbox.reject(
        [
            Rejection(event_id=event(n).event_id, code="event-invalid", detail="user unknown here")
            for n in (1, 2)
        ]
    )
    assert (outbox.depth, outbox.rejected_count) == (0, 1)
    [rejected] = outbox.rejected()
    assert (rejected.event_id, rejected.code, rejected.detail) == (
        event(1).event_id,
        "event-invalid",
        "user unknown here",
    )

    assert outbox.requeue([rejected.event_id, "EV1-1-unknown"]) == 1

    assert (outbox.depth, outbox.rejected_count) == (1, 0)
    assert decode_image(send_due(outbox, clock())[0]["image"]) == JPEG


def test_a_full_budget_drops_old_images_first_and_events_last(
    connection: StoreConnection, clock: Clock
) -> None:
    """Every drop is counted, also over a restart."""
    outbox = new(connection, clock, max_bytes=MEBIBYTE)
    image = b"\xff\xd8" + bytes(100_000)
    for number in range(20):
        outbox.put(event(number), image)
    rows = [json.loads(pending.payload) for pending in outbox.due(clock(), 50)]
    assert ["image" in row for row in rows] == [False] * 10 + [True] * 10
    assert (outbox.depth, outbox.images_dropped, outbox.events_dropped) == (20, 10, 0)

    for number in range(100, 4100):
        outbox.put(event(number))

    again = new(connection, clock, max_bytes=MEBIBYTE)
    assert again.images_dropped == 20
    assert again.events_dropped == 4020 - again.depth > 0
    assert json.loads(again.due(clock(), 1)[0].payload)["event_id"] == event(4100 - again.depth).event_id


def test_an_event_dropped_before_its_receipt_is_not_sent_again(
    connection: StoreConnection, clock: Clock
) -> None:
    """The resend schedule forgets events that the budget dropped."""
    outbox = new(connection, clock, max_bytes=MEBIBYTE)
    outbox.put(event(1))
    send_due(outbox, clock())
    for number in range(100, 4100):
        outbox.put(event(number))
    clock.advance(1000)
    assert event(1).event_id not in {pending["event_id"] for pending in send_due(outbox, clock())}


def test_the_newest_thousand_rejected_events_are_kept(outbox: Outbox) -> None:
    """The others are counted as dropped."""
    for number in range(1003):
        outbox.put(event(number))
    refusals = [
        Rejection(event_id=event(number).event_id, code="event-invalid", detail="no")
        for number in range(1003)
    ]
    outbox.reject(refusals)
    assert (outbox.depth, outbox.rejected_count, outbox.events_dropped) == (0, 1000, 3)
    assert outbox.rejected()[0].event_id == event(3).event_id


def test_a_damaged_event_does_not_block_the_others(
    connection: StoreConnection, outbox: Outbox, clock: Clock
) -> None:
    """SQLite does not detect the flipped bit: the row is moved aside and counted."""
    for number in (1, 2, 3):
        outbox.put(event(number))
    with connection.transaction() as sql:
        sql.execute("UPDATE outbox SET body = CAST('{' AS BLOB) WHERE event_id = ?", (event(2).event_id,))
    sent = [pending["event_id"] for pending in send_due(outbox, clock())]
    assert sent == [event(1).event_id, event(3).event_id]
    [spoilt] = outbox.rejected()
    assert (spoilt.event_id, spoilt.code) == (event(2).event_id, "event-unreadable")
    assert outbox.depth == 2


def test_the_budget_counts_events_that_another_process_queued(
    connection: StoreConnection, clock: Clock
) -> None:
    """`wfm-device rejected requeue` runs beside the device."""
    outbox = new(connection, clock, max_bytes=MEBIBYTE)
    picture = b"\xff\xd8" + bytes(150_000)
    for number in range(6):
        outbox.put(event(number), picture)
    ids = [event(number).event_id for number in range(6)]
    outbox.reject([Rejection(event_id=event_id, code="event-invalid", detail="no") for event_id in ids])
    other = StoreConnection(connection.path)
    other.open()
    assert new(other, clock).requeue(ids) == 6
    other.close()
    for number in range(10, 13):
        outbox.put(event(number), picture)
    with connection.reading() as sql:
        (stored,) = sql.execute(
            "SELECT SUM(LENGTH(body) + COALESCE(LENGTH(image), 0)) FROM outbox"
        ).fetchone()
    assert stored <= MEBIBYTE
    assert (outbox.depth, outbox.images_dropped) == (9, 3)
