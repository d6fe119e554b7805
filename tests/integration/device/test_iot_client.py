"""Test the client on a real broker: presence, events, receipts and failures."""

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


def own_event(number: int, device: FreshDevice, **changes: Any) -> Any:
    return event(number, device.id, **changes)


def test_a_device_publishes_its_status_at_start_and_stop(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """`online` and info are published, then `stopped` with the same session.

    The broker sends no last will.
    """
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site, hardware="sample board")
    wait_until(lambda: peer.messages(channels.INFO, fresh_device.id), "info")
    parts.client.stop()
    wait_until(lambda: len(peer.messages(channels.STATUS, fresh_device.id)) == 2, "two statuses")

    [info] = peer.messages(channels.INFO, fresh_device.id)
    assert (info.site_id, info.hardware, list(info.spaces)) == (fresh_device.site, "sample board", [SPACE])
    online, stopped = peer.messages(channels.STATUS, fresh_device.id)
    assert (online.state, stopped.state) == ("online", "stopped")
    assert online.session == stopped.session


def test_a_killed_connection_leaves_the_last_will_of_its_session(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The next session is higher, so an old `lost` is distinct from the new state."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    wait_until(lambda: peer.messages(channels.STATUS, fresh_device.id), "online")
    connection: Any = parts.client.broker._connection
    connection._client.socket().shutdown(2)
    wait_until(lambda: len(peer.messages(channels.STATUS, fresh_device.id)) >= 3, "three statuses")

    first, lost, second = peer.messages(channels.STATUS, fresh_device.id)[:3]
    assert [status.state for status in (first, lost, second)] == ["online", "lost", "online"]
    assert first.session == lost.session
    assert int(second.session, 16) > int(first.session, 16)


def test_only_a_receipt_settles_an_event(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """An event is sent again, marked as replayed, until its receipt arrives.

    The broker's acknowledgement does not settle it.
    """
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    parts.client.send_event(own_event(1, fresh_device), b"\xff\xd8\xff\xd9")
    wait_until(lambda: len(peer.messages(channels.EVENT, fresh_device.id)) >= 2, "the repeat")
    assert parts.outbox.depth == 1

    first, second = peer.messages(channels.EVENT, fresh_device.id)[:2]
    assert first.event_id == second.event_id
    assert (first.image, second.image) == ("/9j/2Q==", "/9j/2Q==")
    assert [repeat.metadata["replayed"] for repeat in (first, second)] == [False, True]

    peer.send(channels.RECEIPT, Receipts(stored=[first.event_id]), device_id=fresh_device.id)
    wait_until(lambda: parts.outbox.depth == 0, "settled")


def test_send_event_sync_returns_the_outcome_of_the_receipt(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The outcomes are `stored`, `rejected`, and `pending` without an answer."""
    peer.rejects = {own_event(2, fresh_device).event_id}
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    assert parts.client.send_event_sync(own_event(1, fresh_device), 10.0) == "stored"
    assert parts.client.send_event_sync(own_event(2, fresh_device), 10.0) == "rejected"
    assert [rejected.code for rejected in parts.outbox.rejected()] == ["event-invalid"]
    peer.gives_receipts = False
    assert parts.client.send_event_sync(own_event(3, fresh_device), 0.1) == "pending"
    assert parts.outbox.depth == 1


def test_events_wait_for_the_registration_of_their_device(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """After `device-unknown` the event stays in the outbox and is sent again."""
    sent = own_event(1, fresh_device)
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    parts.client.send_event(sent)
    wait_until(lambda: peer.messages(channels.EVENT, fresh_device.id), "the event")
    refusal = Rejection(event_id=sent.event_id, code="device-unknown", detail="not registered")
    peer.send(channels.RECEIPT, Receipts(rejected=[refusal]), device_id=fresh_device.id)
    wait_until(lambda: parts.client.delivery.counts["refused_for_now"] == 1, "the refusal")
    assert (parts.outbox.depth, parts.outbox.rejected()) == (1, [])
    peer.gives_receipts = True
    wait_until(lambda: parts.client.delivery.counts["stored"] == 1, "the repeat and its receipt")
    assert parts.outbox.depth == 0


def test_an_oversized_event_is_refused_before_it_is_stored(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The broker would disconnect the device for it.

    An event of another device is refused too; the next event is stored.
    """
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    with pytest.raises(ContractError, match="payload-too-large"):
        parts.client.send_event(own_event(1, fresh_device), b"\xff\xd8" + bytes(200_000))
    with pytest.raises(ContractError, match="device-mismatch"):
        parts.client.send_event(event(2, "cam-other"))
    assert parts.outbox.depth == 0
    assert parts.client.send_event_sync(own_event(3, fresh_device), 10.0) == "stored"
    assert parts.client.broker.counts["lost"] == 0


def test_retained_receipts_and_unreadable_messages_are_ignored(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """A retained receipt settles nothing; both are counted."""
    receipt = Receipts(stored=[own_event(1, fresh_device).event_id])
    peer.send(channels.RECEIPT, receipt, retain=True, device_id=fresh_device.id)
    topic = channels.SYNC_PAGE.topic(device_id=fresh_device.id)
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    parts.client.send_event(own_event(1, fresh_device))
    wait_until(lambda: parts.client.broker.counts["ignored_retained"] == 1, "ignored")
    peer.send_bytes(topic, b"\xff{not json")
    wait_until(lambda: parts.client.broker.counts["undecodable"] == 1, "undecodable")
    assert parts.outbox.depth == 1
    peer.send_bytes(channels.RECEIPT.topic(device_id=fresh_device.id), b"", retain=True)

    peer.gives_receipts = True
    assert parts.client.send_event_sync(own_event(2, fresh_device), 10.0) == "stored"
    assert parts.client.broker.counts["errors"] == 0


def test_a_wrong_password_is_logged_and_tried_again(
    mosquitto: Mosquitto,
    fresh_device: FreshDevice,
    start_device: StartDevice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The sentence names the settings to check, never the password."""
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


def test_no_event_is_lost_when_the_broker_is_killed(
    own_mosquitto: Mosquitto, own_peer: Peer, start_device: StartDevice
) -> None:
    """Events before, during and after the outage all get their receipt."""
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
    assert {event.event_id for event in own_peer.messages(channels.EVENT, "cam-001")} == sent
    statuses = own_peer.messages(channels.STATUS, "cam-001")
    assert statuses[-1].state == "online"


def test_events_of_an_earlier_run_are_sent_first_as_replayed(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice, tmp_path: Path
) -> None:
    """The device was switched off with a full outbox."""
    path = tmp_path / "left" / "device.db"
    peer.gives_receipts = False
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site, path=path)
    for number in range(5):
        parts.client.send_event(own_event(number, fresh_device))
    parts.client.stop()
    parts.db.close()
    before = len(peer.messages(channels.EVENT, fresh_device.id))

    peer.gives_receipts = True
    restarted = start_device(mosquitto, fresh_device.id, fresh_device.site, path=path)
    wait_until(lambda: restarted.outbox.depth == 0, "all settled")

    late = peer.messages(channels.EVENT, fresh_device.id)[before:]
    # A busy machine may receive one twice: its receipt came too late.
    assert list(dict.fromkeys(event.event_id for event in late)) == [
        own_event(n, fresh_device).event_id for n in range(5)
    ]
    assert all(event.metadata["replayed"] for event in late)


def test_a_device_syncs_by_pages_then_by_deltas_and_confirms_each(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """Each confirmation has the registry's digest."""
    registry = peer.registry = ModelRegistry()
    peer.page_limit = 4
    for n in range(10):
        registry.enroll(f"EMP-{n}", n)
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    wait_until(lambda: peer.messages(channels.SYNC_APPLIED, fresh_device.id), "the first sync")

    peer.send(channels.SYNC_DELTA, registry.delete("EMP-3"), site_id=fresh_device.site)
    peer.send(channels.SYNC_HEAD, registry.head(), site_id=fresh_device.site)
    wait_until(
        lambda: peer.messages(channels.SYNC_APPLIED, fresh_device.id)[-1].version == 11, "the deletion"
    )

    applied = peer.messages(channels.SYNC_APPLIED, fresh_device.id)[-1]
    assert applied.spaces[SPACE].digest == registry.digest().hex
    assert len(peer.messages(channels.SYNC_REQUEST, fresh_device.id)) == 3
    assert sorted(parts.db.get_all_enrollments()) == sorted(registry.people)

    registry.delete("EMP-4")
    parts.client.request_sync(0)
    wait_until(
        lambda: peer.messages(channels.SYNC_APPLIED, fresh_device.id)[-1].version == 12, "the snapshot sync"
    )
    assert "EMP-4" not in parts.db.get_all_enrollments()


def test_an_unexpected_error_does_not_end_the_session(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The error is counted, and the next event is stored."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)

    def fail() -> None:
        raise RuntimeError("sample")

    parts.client.submit(fail)
    assert parts.client.send_event_sync(own_event(1, fresh_device), 10.0) == "stored"
    assert parts.client.broker.counts["errors"] == 1


def test_the_file_stays_intact_under_concurrent_use(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """One thread stores events, another sends and settles; SQLite checks the file."""
    parts = start_device(mosquitto, fresh_device.id, fresh_device.site)
    for number in range(300):
        parts.client.send_event(own_event(number, fresh_device), b"\xff\xd8" + bytes(5000))
    wait_until(lambda: parts.outbox.depth == 0, "all settled")
    with sqlite3.connect(parts.db.connection.path) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def standalone_client(broker: Mosquitto, device: FreshDevice, db_path: Path, **changes: Any) -> IoTClient:
    """Return a client that gets only its configuration."""
    return IoTClient(config_for(broker, device.id, device.site, db_path=db_path, **changes))


def test_a_standalone_client_opens_and_closes_its_own_store(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, tmp_path: Path
) -> None:
    """It sends and syncs; starting or stopping twice has no effect.

    A stopped client cannot be started again: a sentence says what to do.
    """
    registry = peer.registry = ModelRegistry()
    registry.enroll("EMP-1", 1)
    client = standalone_client(mosquitto, fresh_device, tmp_path / "own.db")
    client.start()
    client.start()
    assert client.send_event_sync(own_event(1, fresh_device), 10.0) == "stored"
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


def test_a_missing_certificate_file_is_an_error_at_once(tmp_path: Path) -> None:
    """The error has the file's name; no database is created."""
    missing = tmp_path / "ca.pem"
    config = IoTClientConfig(
        "cam-001", broker_url="mqtts://127.0.0.1", ca_file=missing, db_path=tmp_path / "own.db"
    )
    with pytest.raises(SettingsError, match=r"ca\.pem cannot be used"):
        IoTClient(config)
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_sync_ends_at_the_timeout(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, tmp_path: Path
) -> None:
    """Without an answer the current status is returned.

    A client that is not started does not wait.
    """
    client = standalone_client(mosquitto, fresh_device, tmp_path / "own.db")
    assert client.request_sync(timeout=600).epoch is None
    client.start()
    wait_until(lambda: peer.messages(channels.SYNC_REQUEST, fresh_device.id), "a request")
    status = client.request_sync(timeout=0.05)
    assert (status.epoch, status.in_progress) == (None, True)
    client.stop()


def test_waiting_in_the_clients_own_thread_is_an_error(
    mosquitto: Mosquitto, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """The wait could never end."""
    client = start_device(mosquitto, fresh_device.id, fresh_device.site).client
    refusals: queue.SimpleQueue[str] = queue.SimpleQueue()

    def try_to_wait() -> None:
        for wait in (client.request_sync, lambda: client.send_event_sync(own_event(1, fresh_device))):
            with pytest.raises(RuntimeError) as refused:
                wait()
            refusals.put(str(refused.value))

    client.submit(try_to_wait)
    assert all("waits for the client's own thread" in refusals.get(timeout=10.0) for _ in range(2))
    assert client.outbox.depth == 0


def test_an_event_is_sent_without_an_image_that_cannot_be_encoded(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_device: StartDevice
) -> None:
    """Omitted images are counted; the next event keeps its image."""
    client = start_device(mosquitto, fresh_device.id, fresh_device.site).client
    frame = np.full((480, 640, 3), 90, np.uint8)
    client.send_event(own_event(1, fresh_device), frame[:0], [10, 10, 50, 50])
    client.send_event(own_event(2, fresh_device), frame, [900, 900, 50, 50])
    client.send_event(own_event(3, fresh_device), frame, [10, 10, 50, 50])
    wait_until(lambda: client.outbox.depth == 0, "three receipts")
    images = {event.event_id: event.image for event in peer.messages(channels.EVENT, fresh_device.id)}
    with_image = [bool(images[own_event(n, fresh_device).event_id]) for n in (1, 2, 3)]
    assert with_image == [False, False, True]
    assert client.counts == {"images_left_out": 2}


@pytest.mark.parametrize("dev_mode", [True, False])
def test_dev_mode_logs_more(
    mosquitto: Mosquitto, fresh_device: FreshDevice, tmp_path: Path, dev_mode: bool
) -> None:
    """Only the device's loggers have the level debug."""
    logger = logging.getLogger("device")
    before, root_level = logger.level, logging.getLogger().level
    # Another test may have used a client in dev mode in this process.
    logger.setLevel(logging.NOTSET)
    try:
        standalone_client(mosquitto, fresh_device, tmp_path / "own.db", dev_mode=dev_mode).stop()
        assert (logger.level == logging.DEBUG) is dev_mode
        assert logging.getLogger().level == root_level
    finally:
        logger.setLevel(before)
