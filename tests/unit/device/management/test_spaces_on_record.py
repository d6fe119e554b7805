"""A device whose model or preparation differs from the registry's record."""

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import SpaceHead, SpaceInfo, SyncHead
from device.management.health import Health
from device.management.spaces_on_record import SpacesOnRecord
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager

OURS, OTHER = "a" * 64, "b" * 64
SPACE = "face:test-8"


@pytest.fixture
def db(tmp_path):
    manager = DatabaseManager(tmp_path / "device.db")
    manager.initialize()
    yield manager
    manager.close()


def record_of(db, sha256=OURS):
    health = Health()
    return SpacesOnRecord(db, health, {SPACE: SpaceInfo(dimension=8, model_sha256=sha256)}), health


def receive_head(record, sha256, space=SPACE):
    head = SyncHead(
        epoch="aa",
        version=1,
        horizon=0,
        spaces={space: SpaceHead(count=1, digest="0" * 16, model_sha256=sha256)},
    )
    record.receive_message(Decoded(channels.SYNC_HEAD, {}, head))


def test_the_same_model_is_no_problem(db):
    """A missing record and a record of another space are no problem either."""
    record, health = record_of(db)
    for sha256, space in [(OURS, SPACE), (None, SPACE), (OTHER, "face:other")]:
        receive_head(record, sha256, space)
        assert (health.problems(), health.is_quarantined) == ([], False)


def test_another_model_is_a_quarantine_that_names_both_hashes(db):
    """It ends when the registry's record or the device's file changes."""
    record, health = record_of(db)
    receive_head(record, OTHER)
    (problem,) = health.problems()
    assert (problem.code, health.is_quarantined) == ("model-differs", True)
    assert OURS[:12] in problem.detail
    assert OTHER[:12] in problem.detail
    receive_head(record, OURS)
    assert (health.problems(), health.is_quarantined) == ([], False)


def test_the_record_outlives_a_restart_without_a_network(db):
    """A device that starts offline must not match with the wrong model."""
    receive_head(record_of(db)[0], OTHER)
    assert record_of(db)[1].is_quarantined
    assert not record_of(db, OTHER)[1].is_quarantined


def test_a_device_without_a_hash_is_not_compared(db):
    """Firmware with its own recognition may not know a hash."""
    record, health = record_of(db, None)
    receive_head(record, OTHER)
    assert not health.is_quarantined


def test_a_full_disk_does_not_prevent_the_quarantine(db):
    """The record applies although it cannot be stored, which raises an error."""
    record, health = record_of(db)
    db.connection.close()
    with pytest.raises(StoreError):
        receive_head(record, OTHER)
    assert health.is_quarantined
