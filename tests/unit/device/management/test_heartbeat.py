"""The sync progress in a heartbeat."""

from pathlib import Path

import pytest

from broker_bridge.contract.messages import Heartbeat, SpaceInfo, SyncProgress
from device.client.assembly import assemble
from device.management.heartbeat import HeartbeatSender
from device.mqtt.config import DEFAULT_SITE, IoTClientConfig
from device.store.cursor import SnapshotProgress, SyncCursor
from device.store.db_manager import DatabaseManager
from tests.device_samples import DIMENSION, SPACE, Clock, person


@pytest.mark.parametrize("filled", [False, True])
def test_a_heartbeat_has_the_progress_of_a_sync(tmp_path: Path, filled: bool) -> None:
    """The sync is a first one or replaces a live gallery, also over a restart."""
    path = tmp_path / "device.db"
    at = SyncCursor(DEFAULT_SITE, (SPACE,), "aa", 3)
    db = DatabaseManager(path)
    db.initialize()
    if filled:
        db.apply_delta([person("OLD", 1)], [], at)
    db.begin_snapshot([person("EMP-1", 2), person("EMP-2", 3)], SnapshotProgress(at, 8))
    db.close()
    assert heartbeat(path).syncing == SyncProgress(version=3, head_version=8, people=2)


def test_without_a_sync_the_heartbeat_has_no_progress(tmp_path: Path) -> None:
    """A new device has no progress either."""
    assert heartbeat(tmp_path / "device.db").syncing is None


def heartbeat(path: Path) -> Heartbeat:
    config = IoTClientConfig("cam-001", spaces={SPACE: SpaceInfo(dimension=DIMENSION)})
    parts = assemble(config, path)
    clock = Clock()
    sender = HeartbeatSender(
        parts.client, parts.sync, folder=path.parent, interval=30.0, clock=clock, utc_now=clock.utc_now
    )
    try:
        return sender.compose()
    finally:
        parts.db.close()
