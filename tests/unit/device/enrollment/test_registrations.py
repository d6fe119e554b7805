"""Pending registrations of visitors and employees, on a real SQLite file."""

from datetime import timedelta

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import to_base64
from broker_bridge.contract.messages import Registered, SyncHead, WireError
from device.enrollment.registrations import RegistrationSender
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from device.store.registrations import MAX_PENDING
from tests.device_samples import SPACE, Clock, ScriptedLink, seeded, vector

OTHER_SPACE = "gait:test-6"


class Door:
    """The registrations of one device on a file; a second one on it is a restart."""

    def __init__(self, path, clock=None, policy="visitors"):
        self.clock = clock or Clock()
        self.link = ScriptedLink()
        self.path = path
        self.db = DatabaseManager(path, utc_now=self.clock.utc_now)
        self.db.initialize()
        self.quarantined_spaces = ()
        self.registrations = RegistrationSender(
            self.link,
            self.db,
            source=seeded(),
            utc_now=self.clock.utc_now,
            is_quarantined=lambda space: space in self.quarantined_spaces,
        )
        if policy:
            self.receive_policy(policy)
        self.registrations.connected(self.clock())

    def receive_policy(self, policy):
        head = SyncHead(epoch="aa", version=1, horizon=0, spaces={}, enrollment_policy=policy)
        self.registrations.receive_message(Decoded(channels.SYNC_HEAD, {}, head))

    def tick(self, seconds=0.0):
        self.clock.advance(seconds)
        return self.registrations.tick(self.clock())

    def answer(self, request_id, result="created", error=None):
        message = Registered(request_id=request_id, result=result, error=error)
        self.registrations.receive_message(Decoded(channels.REGISTERED, {}, message))

    @property
    def sent(self):
        return [request.request_id for request in self.link.of(channels.REGISTER)]


@pytest.fixture
def door(tmp_path):
    door = Door(tmp_path / "device.db")
    yield door
    door.db.close()


def test_visitors_are_registered_only_if_the_site_is_open(door):
    """Sites are closed by default; the policy of the head opens and closes them."""
    door.receive_policy(None)
    door.registrations.offer_visitor(SPACE, vector(1))
    door.tick()
    assert door.sent == []
    door.receive_policy("visitors")
    door.registrations.offer_visitor(SPACE, vector(1))
    door.tick()
    (sent,) = door.link.of(channels.REGISTER)
    assert (sent.kind, sent.space, sent.vector, sent.user_id) == ("visitor", SPACE, vector(1), None)


def test_the_policy_is_known_after_a_restart_without_a_network(door):
    """Visitors seen while offline are registered after the next connection."""
    again = Door(door.path, door.clock, policy=None)
    assert again.registrations.registers_visitors
    again.db.close()


def test_a_registration_is_repeated_until_it_is_answered(door):
    """The pauses grow; a repeated answer has no effect."""
    door.registrations.offer_visitor(SPACE, vector(1))
    for _ in range(4):
        due = door.tick()
        door.clock.seconds = due
    assert len(door.sent) == 4
    assert len(set(door.sent)) == 1
    door.answer(door.sent[0])
    door.answer(door.sent[0])
    assert door.tick(1000.0) is None
    assert door.registrations.counts == {"offered": 1, "created": 1}


def test_a_registration_is_repeated_when_the_bridge_works_again(door):
    """An answer to one registration or a head shows that; the pauses begin anew."""
    door.registrations.offer_visitor(SPACE, vector(1))
    while (due := door.tick()) - door.clock() < 60:
        door.clock.seconds = due
    sent = len(door.sent)
    door.tick(15.0)
    assert len(door.sent) == sent
    door.registrations.offer_visitor(SPACE, vector(2))
    door.tick()
    door.answer(door.sent[-1])
    door.tick()
    following = door.tick(1.0)
    assert len(door.sent) == sent + 2
    assert following - door.clock() <= 10


def test_pending_registrations_survive_a_restart_and_answered_ones_do_not(door):
    """The queue is stored in the file."""
    for seed in (1, 2):
        door.registrations.offer_visitor(SPACE, vector(seed))
        door.clock.advance(1.0)
    door.tick()
    first, second = door.sent
    door.answer(first, "exists")
    again = Door(door.path, door.clock)
    again.tick(5.0)
    assert again.sent == [second]
    again.db.close()


def is_stored(door, *needles):
    """Return whether a file of the device contains `needles` or the vector of seed 1."""
    files = [file.read_bytes() for file in door.path.parent.iterdir()]
    return any(needle in data for data in files for needle in (*needles, vector(1)))


def test_an_answered_vector_leaves_no_copy_in_the_file(door):
    """No vector stays on a camera after its registration is settled."""
    door.registrations.offer_visitor(SPACE, vector(1))
    door.tick()
    door.answer(door.sent[0], "rejected", WireError(code="enrollment-closed", detail="closed"))
    message = door.link.of(channels.REGISTER)[0]
    wire = message.to_json()
    assert b'"vector"' in wire
    assert not is_stored(door, wire[-60:])


@pytest.mark.parametrize("code", ["device-unknown", "space-unknown"])
def test_temporary_rejections_stay_pending(door, code):
    """An unregistered device and an unknown space are temporary errors."""
    door.registrations.offer_visitor(SPACE, vector(1))
    door.tick()
    door.answer(door.sent[0], "rejected", WireError(code=code, detail="not yet"))
    door.tick(400.0)
    assert len(door.sent) == 2


def test_surplus_and_expired_registrations_are_dropped(door):
    """A device that is offline for a day does not fill its disk."""
    for seed in range(MAX_PENDING + 5):
        door.registrations.offer_visitor(SPACE, vector(seed))
        door.clock.advance(1.0)
    door.tick()
    assert len(set(door.sent)) == MAX_PENDING
    assert door.registrations.counts["dropped"] == 5
    door.clock.advance(timedelta(days=2).total_seconds())
    door.registrations.offer_visitor(SPACE, vector(1))
    assert door.registrations.counts["dropped"] == MAX_PENDING + 5


def test_a_registration_waits_for_the_connection(door):
    """It is sent within a second of the next connection."""
    door.link.up = False
    door.registrations.offer_visitor(SPACE, vector(1))
    assert door.tick() is None
    door.registrations.disconnected()
    door.link.up = True
    door.registrations.connected(door.clock())
    door.tick(1.0)
    assert len(door.sent) == 1


def test_an_expired_registration_leaves_no_vector_in_the_files(door):
    """It expires after a day without another visitor, also over a restart."""
    text = to_base64(vector(1)).encode()
    door.registrations.offer_visitor(SPACE, vector(1))
    door.registrations.disconnected()
    assert is_stored(door, text)
    door.tick(timedelta(days=1, minutes=1).total_seconds())
    assert not is_stored(door, text)
    assert door.registrations.counts["dropped"] == 1
    door.registrations.connected(door.clock())
    assert door.tick(1.0) is None
    assert door.sent == []


def test_a_registration_of_a_quarantined_model_is_dropped(door):
    """A pending visitor is dropped if the quarantine begins before it is sent."""
    door.registrations.offer_visitor(SPACE, vector(1))
    door.quarantined_spaces = (SPACE,)
    door.tick(10.0)
    assert (door.sent, door.registrations.counts["dropped"]) == ([], 1)
    door.quarantined_spaces = ()
    door.tick(1000.0)
    assert door.sent == []
    assert not is_stored(door, to_base64(vector(1)).encode())


def test_a_site_closes_on_a_full_disk(door):
    """The head's policy applies at once; a restart may forget it."""
    door.db.connection.close()
    with pytest.raises(StoreError):
        door.receive_policy("closed")
    assert not door.registrations.registers_visitors


def test_a_damaged_registration_does_not_prevent_the_start(tmp_path):
    """It is deleted from file and log, and the other registrations stay pending."""
    first = Door(tmp_path / "device.db")
    for number in (1, 2):
        first.registrations.offer_visitor(SPACE, vector(number))
    with first.db.connection.transaction() as connection:
        connection.execute(
            "UPDATE registrations SET body = X'7BFF' "
            "WHERE request_id = (SELECT MIN(request_id) FROM registrations)"
        )
    first.db.close()
    second = Door(tmp_path / "device.db")
    second.tick(2.0)
    assert len(second.sent) == 1
    with second.db.connection.reading() as connection:
        assert connection.execute("SELECT COUNT(*) FROM registrations").fetchone() == (1,)
    second.db.close()


# Employees


def test_an_employee_is_registered_at_a_closed_site(door):
    """The request has a user id, and its callback runs once.

    It does not count as a visitor.
    """
    answers = []
    door.receive_policy("closed")
    door.registrations.register_employee("EMP-1", SPACE, vector(1), answers.append)
    door.tick()
    (sent,) = door.link.of(channels.REGISTER)
    assert (sent.kind, sent.user_id, sent.space, sent.vector) == ("employee", "EMP-1", SPACE, vector(1))
    for _ in range(2):
        door.answer(sent.request_id, "exists")
    assert [answer.result for answer in answers] == ["exists"]
    assert door.registrations.counts == {}
    assert not is_stored(door, to_base64(vector(1)).encode())


def test_a_pending_employee_is_not_registered_twice_after_a_restart(door):
    """The same registration is sent once; another vector is another registration."""
    door.registrations.register_employee("EMP-1", SPACE, vector(1), lambda _: None)
    again = Door(door.path, door.clock)
    first, second = [], []
    again.registrations.register_employee("EMP-1", SPACE, vector(1), first.append)
    again.registrations.register_employee("EMP-1", SPACE, vector(2), second.append)
    again.tick(1.0)
    old, new = again.link.of(channels.REGISTER)
    again.answer(old.request_id)
    again.answer(new.request_id, "rejected", WireError(code="face-differs", detail="no"))
    assert [answer.result for answer in first] == ["created"]
    assert [answer.error.code for answer in second] == ["face-differs"]
    assert again.tick(1000.0) is None
    again.db.close()


def test_a_callback_gets_none_if_there_will_be_no_answer(door):
    """An expired or surplus registration calls back with None and may be repeated."""
    answers = []
    door.registrations.register_employee("EMP-1", SPACE, vector(1), answers.append)
    door.clock.advance(1.0)
    for seed in range(MAX_PENDING):
        door.registrations.offer_visitor(SPACE, vector(seed))
    assert answers == [None]
    door.registrations.register_employee("EMP-2", SPACE, vector(1), answers.append)
    door.tick(timedelta(days=1, minutes=1).total_seconds())
    assert answers == [None, None]


def test_an_employee_waits_while_its_space_is_quarantined(door):
    """Nothing is dropped, since the file stays; other spaces are registered."""
    door.quarantined_spaces = (SPACE,)
    door.registrations.register_employee("EMP-1", SPACE, vector(1), lambda _: None)
    door.registrations.register_employee("EMP-2", OTHER_SPACE, vector(2, 6), lambda _: None)
    assert door.tick() is not None
    assert [request.user_id for request in door.link.of(channels.REGISTER)] == ["EMP-2"]
    door.quarantined_spaces = ()
    door.tick()
    assert [request.user_id for request in door.link.of(channels.REGISTER)] == ["EMP-2", "EMP-1"]
