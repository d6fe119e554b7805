"""The client on a real broker: presence, events and receipts, and what breaks in between."""

import logging
import queue
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract import channels
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Receipts, Rejection
from deploy.local.stack import Mosquitto
from device.client.iot_client import IoTClient
from device.mqtt.config import IoTClientConfig
from device.store.connection import StoreError
from tests.conftest import FreshDevice
from tests.device_samples import SPACE, ModelRegistry, event
from tests.integration.device.conftest import Peer, StartDevice, config_for
from tests.waiting import wait_until


def own(number: int, device: FreshDevice, **changes: Any) -> Any:
    return event(number, device.id, **changes)


def test_a_device_announces_itself_and_says_goodbye(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """Status online and info, retained; `stopped` with the same session at the end, and no last will."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site, hardware="sample board")
    wait_until(lambda: peer.of(channels.INFO, fresh_device.id), "info")
    parts.client.stop()
    wait_until(lambda: len(peer.of(channels.STATUS, fresh_device.id)) == 2, "two statuses")

    [info] = peer.of(channels.INFO, fresh_device.id)
    assert (info.site_id, info.hardware, list(info.spaces)) == (fresh_device.site, "sample board", [SPACE])
    online, stopped = peer.of(channels.STATUS, fresh_device.id)
    assert (online.state, stopped.state) == ("online", "stopped")
    assert online.session == stopped.session


def test_a_killed_connection_leaves_the_last_will_of_its_session(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The next connection has a higher session, so that an old `lost` is distinct from the new state."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    wait_until(lambda: peer.of(channels.STATUS, fresh_device.id), "online")
    connection: Any = parts.client.broker._connection
    connection._client.socket().shutdown(2)
    wait_until(lambda: len(peer.of(channels.STATUS, fresh_device.id)) >= 3, "three statuses")

    first, lost, second = peer.of(channels.STATUS, fresh_device.id)[:3]
    assert [one.state for one in (first, lost, second)] == ["online", "lost", "online"]
    assert first.session == lost.session
    assert int(second.session, 16) > int(first.session, 16)


def test_only_a_receipt_settles_an_event(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The broker's acknowledgement does not; the event comes again, and says so, until the bridge has it."""
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    parts.client.send_event(own(1, fresh_device), b"\xff\xd8\xff\xd9")
    wait_until(lambda: len(peer.of(channels.EVENT, fresh_device.id)) == 2, "the repeat")
    assert parts.outbox.depth == 1

    first, second = peer.of(channels.EVENT, fresh_device.id)
    assert first.event_id == second.event_id
    assert (first.image, second.image) == ("/9j/2Q==", "/9j/2Q==")
    assert [one.metadata["replayed"] for one in (first, second)] == [False, True]

    peer.send(channels.RECEIPT, Receipts(stored=[first.event_id]), device_id=fresh_device.id)
    wait_until(lambda: parts.outbox.depth == 0, "settled")


def test_the_bridges_word_can_be_waited_for(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """stored, rejected (kept aside), or pending without an answer."""
    peer.rejects = {own(2, fresh_device).event_id}
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    assert parts.client.send_event_sync(own(1, fresh_device), 10.0) == "stored"
    assert parts.client.send_event_sync(own(2, fresh_device), 10.0) == "rejected"
    assert [one.code for one in parts.outbox.rejected()] == ["event-invalid"]
    peer.gives_receipts = False
    assert parts.client.send_event_sync(own(3, fresh_device), 0.1) == "pending"
    assert parts.outbox.depth == 1


def test_events_wait_for_the_registration_of_their_camera(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """`device-unknown` ends by itself: the event stays in the outbox, comes again, and is stored then."""
    sent = own(1, fresh_device)
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    parts.client.send_event(sent)
    wait_until(lambda: peer.of(channels.EVENT, fresh_device.id), "the event")
    refusal = Rejection(event_id=sent.event_id, code="device-unknown", detail="not registered")
    peer.send(channels.RECEIPT, Receipts(rejected=[refusal]), device_id=fresh_device.id)
    wait_until(lambda: parts.client.delivery.counts["refused_for_now"] == 1, "the refusal")
    assert (parts.outbox.depth, parts.outbox.rejected()) == (1, [])
    peer.gives_receipts = True
    wait_until(lambda: parts.client.delivery.counts["stored"] == 1, "the repeat and its receipt")
    assert parts.outbox.depth == 0


def test_what_the_broker_would_disconnect_us_for_is_refused_before_it_is_stored(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """And so is an event of another device; the neighbours go through."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    with pytest.raises(ContractError, match="payload-too-large"):
        parts.client.send_event(own(1, fresh_device), b"\xff\xd8" + bytes(200_000))
    with pytest.raises(ContractError, match="device-mismatch"):
        parts.client.send_event(event(2, "cam-other"))
    assert parts.outbox.depth == 0
    assert parts.client.send_event_sync(own(3, fresh_device), 10.0) == "stored"
    assert parts.client.broker.counts["lost"] == 0


def test_a_retained_receipt_and_rubbish_are_ignored_and_counted(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """A retained receipt settles nothing; an unreadable message has no effect."""
    receipt = Receipts(stored=[own(1, fresh_device).event_id])
    peer.send(channels.RECEIPT, receipt, retain=True, device_id=fresh_device.id)
    topic = channels.SYNC_PAGE.topic(device_id=fresh_device.id)
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    parts.client.send_event(own(1, fresh_device))
    wait_until(lambda: parts.client.broker.counts["ignored_retained"] == 1, "ignored")
    peer.send_bytes(topic, b"\xff{not json")
    wait_until(lambda: parts.client.broker.counts["undecodable"] == 1, "undecodable")
    assert parts.outbox.depth == 1
    peer.send_bytes(channels.RECEIPT.topic(device_id=fresh_device.id), b"", retain=True)

    peer.gives_receipts = True
    assert parts.client.send_event_sync(own(2, fresh_device), 10.0) == "stored"
    assert parts.client.broker.counts["errors"] == 0


def test_a_wrong_password_is_said_in_one_sentence_and_tried_again(
    mosquitto: Mosquitto,
    fresh_device: FreshDevice,
    start_device: StartDevice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It names the variables to look at, never the password."""
    right = mosquitto.users[fresh_device.id]
    mosquitto.users[fresh_device.id] = "wrong-one"
    try:
        with caplog.at_level(logging.WARNING):
            parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
            wait_until(lambda: parts.client.broker.counts["refused"] >= 2, "two refusals")
    finally:
        mosquitto.users[fresh_device.id] = right
    assert "WFM_MQTT__USERNAME and WFM_MQTT__PASSWORD" in caplog.text
    assert "wrong-one" not in caplog.text


def test_nothing_is_lost_when_the_broker_is_killed_in_the_middle_of_a_stream(
    own_mosquitto: Mosquitto, own_peer: Peer, start_device: StartDevice
) -> None:
    """Events before, during and after the outage all get their receipt in the end."""
    parts = start_device(own_mosquitto, "cam-001", "lobby")
    sent = set()
    for number in range(300):
        if number == 100:
            own_mosquitto.kill()
        if number == 200:
            own_mosquitto.restart()
        parts.client.send_event(event(number))
        sent.add(event(number).event_id)
    wait_until(lambda: parts.outbox.depth == 0, "all settled", 30.0)
    assert {one.event_id for one in own_peer.of(channels.EVENT, "cam-001")} == sent
    statuses = own_peer.of(channels.STATUS, "cam-001")
    assert statuses[-1].state == "online"


def test_events_of_an_earlier_run_go_out_first_and_say_that_they_are_late(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice, tmp_path: Path
) -> None:
    """A device that was switched off with a full outbox."""
    path = tmp_path / "left" / "device.db"
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site, path=path)
    for number in range(5):
        parts.client.send_event(own(number, fresh_device))
    parts.client.stop()
    parts.db.close()
    before = len(peer.of(channels.EVENT, fresh_device.id))

    peer.gives_receipts = True
    again = start_device(mosquitto, fresh_device.id, fresh_device.site, path=path)
    wait_until(lambda: again.outbox.depth == 0, "all settled")

    late = peer.of(channels.EVENT, fresh_device.id)[before:]
    assert [one.event_id for one in late] == [own(n, fresh_device).event_id for n in range(5)]
    assert all(one.metadata["replayed"] for one in late)


def test_a_device_syncs_by_pages_then_by_deltas_and_confirms_each(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """Over the real broker; the confirmation carries the registry's own digest."""
    registry = peer.registry = ModelRegistry()
    peer.page_limit = 4
    for n in range(10):
        registry.enroll(f"EMP-{n}", n)
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    wait_until(lambda: peer.of(channels.SYNC_APPLIED, fresh_device.id), "the first sync")

    peer.send(channels.SYNC_DELTA, registry.delete("EMP-3"), site_id=fresh_device.site)
    peer.send(channels.SYNC_HEAD, registry.head(), site_id=fresh_device.site)
    wait_until(lambda: peer.of(channels.SYNC_APPLIED, fresh_device.id)[-1].version == 11, "the deletion")

    applied = peer.of(channels.SYNC_APPLIED, fresh_device.id)[-1]
    assert applied.spaces[SPACE].digest == registry.digest().hex
    assert len(peer.of(channels.SYNC_REQUEST, fresh_device.id)) == 3
    assert sorted(parts.db.get_all_enrollments()) == sorted(registry.people)

    registry.delete("EMP-4")
    parts.client.request_sync(0)
    wait_until(lambda: peer.of(channels.SYNC_APPLIED, fresh_device.id)[-1].version == 12, "the snapshot sync")
    assert "EMP-4" not in parts.db.get_all_enrollments()


def test_an_unexpected_error_in_one_message_does_not_end_the_line(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """It is counted, and the next event goes through."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)

    def fail() -> None:
        raise RuntimeError("sample")

    parts.client.submit(fail)
    assert parts.client.send_event_sync(own(1, fresh_device), 10.0) == "stored"
    assert parts.client.broker.counts["errors"] == 1


def test_the_file_stays_whole_after_all_this(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """Stored in one thread, sent and settled in another, checked by SQLite itself."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    for number in range(300):
        parts.client.send_event(own(number, fresh_device), b"\xff\xd8" + bytes(5000))
    wait_until(lambda: parts.outbox.depth == 0, "all settled")
    with sqlite3.connect(parts.db.connection.path) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def alone(broker: Mosquitto, device: FreshDevice, db_path: Path, **changes: Any) -> IoTClient:
    """A client that is given nothing but its configuration."""
    return IoTClient(config_for(broker, device.id, device.site, db_path=db_path, **changes))


def test_a_client_alone_opens_its_own_store_and_closes_it(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, tmp_path: Path
) -> None:
    """It sends, syncs, and holds nothing after `stop`; starting and stopping twice are harmless, and to start
    what was stopped is refused in a sentence rather than left without effect.
    """
    registry = peer.registry = ModelRegistry()
    registry.enroll("EMP-1", 1)
    client = alone(mosquitto, fresh_device, tmp_path / "own.db")
    client.start()
    client.start()
    assert client.send_event_sync(own(1, fresh_device), 10.0) == "stored"
    status = client.request_sync(since_version=100)
    assert (status.version, list(client.db.get_all_enrollments())) == (1, ["EMP-1"])
    assert client.broker.counts["connections"] == 1

    client.stop()
    client.stop()
    with pytest.raises(StoreError, match="not open"):
        client.db.get_all_enrollments()
    with pytest.raises(RuntimeError, match="make a new one"):
        client.start()
    names = [thread.name for thread in threading.enumerate()]
    assert f"line-{fresh_device.id}" not in names


def test_a_certificate_file_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """By its name, instead of trying for ever to reach the broker; no database is made."""
    missing = tmp_path / "ca.pem"
    config = IoTClientConfig(
        "cam-001", broker_url="mqtts://127.0.0.1", ca_file=missing, db_path=tmp_path / "own.db"
    )
    with pytest.raises(SettingsError, match=r"ca\.pem cannot be used"):
        IoTClient(config)
    assert list(tmp_path.iterdir()) == []


def test_a_sync_that_is_waited_for_ends_in_time(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, tmp_path: Path
) -> None:
    """Without an answer it returns the current status; a client that is not started does not wait."""
    client = alone(mosquitto, fresh_device, tmp_path / "own.db")
    assert client.request_sync(timeout=600).epoch is None
    client.start()
    wait_until(lambda: peer.of(channels.SYNC_REQUEST, fresh_device.id), "a request")
    status = client.request_sync(timeout=0.05)
    assert (status.epoch, status.in_progress) == (None, True)
    client.stop()


def test_the_clients_own_thread_is_told_not_to_wait_for_itself(
    mosquitto: Mosquitto, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """An error at once, where a wait could never end."""
    client = start_device(mosquitto, fresh_device.id, fresh_device.site).client
    refusals: queue.SimpleQueue[str] = queue.SimpleQueue()

    def try_to_wait() -> None:
        for wait in (client.request_sync, lambda: client.send_event_sync(own(1, fresh_device))):
            with pytest.raises(RuntimeError) as refused:
                wait()
            refusals.put(str(refused.value))

    client.submit(try_to_wait)
    assert all("waits for the client's own thread" in refusals.get(timeout=10.0) for _ in range(2))
    assert client.outbox.depth == 0


def test_an_event_goes_without_an_image_that_cannot_be_encoded(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """And is counted; the picture of its neighbour goes along."""
    client = start_device(mosquitto, fresh_device.id, fresh_device.site).client
    frame = np.full((480, 640, 3), 90, np.uint8)
    client.send_event(own(1, fresh_device), frame[:0], [10, 10, 50, 50])
    client.send_event(own(2, fresh_device), frame, [900, 900, 50, 50])
    client.send_event(own(3, fresh_device), frame, [10, 10, 50, 50])
    wait_until(lambda: client.outbox.depth == 0, "three receipts")
    images = {one.event_id: one.image for one in peer.of(channels.EVENT, fresh_device.id)}
    with_image = [bool(images[own(n, fresh_device).event_id]) for n in (1, 2, 3)]
    assert with_image == [False, False, True]
    assert client.counts == {"images_left_out": 2}


@pytest.mark.parametrize("dev_mode", [True, False])
def test_dev_mode_logs_more(
    mosquitto: Mosquitto, fresh_device: FreshDevice, tmp_path: Path, dev_mode: bool
) -> None:
    """Only the device's loggers are at debug."""
    logger = logging.getLogger("device")
    before, others = logger.level, logging.getLogger().level
    # Another client in dev mode may have been in this process.
    logger.setLevel(logging.NOTSET)
    try:
        alone(mosquitto, fresh_device, tmp_path / "own.db", dev_mode=dev_mode).stop()
        assert (logger.level == logging.DEBUG) is dev_mode
        assert logging.getLogger().level == others
    finally:
        logger.setLevel(before)
