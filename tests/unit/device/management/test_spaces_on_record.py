"""A device whose model or preparation differs from the registry's record."""

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import SpaceHead, SpaceInfo, SyncHead
from device.management.health import Health
from device.management.space_problems import SpaceOnRecord, find_differences
from device.management.spaces_on_record import SpacesOnRecord
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from tests.networks import LIMITS

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


def test_the_hash_that_earlier_software_stored_is_known(db):
    """A device that was updated while it was offline keeps its quarantine."""
    db.set_config(f"model_on_record:{SPACE}", OTHER)
    assert record_of(db)[1].is_quarantined
    record, health = record_of(db)
    receive_head(record, OURS)
    assert not health.is_quarantined
    assert not record_of(db)[1].is_quarantined


def test_a_space_that_is_removed_from_the_registry_differs_no_more(db):
    """A head names every space that has a record."""
    receive_head(record_of(db)[0], OTHER)
    record, health = record_of(db)
    assert health.is_quarantined
    receive_head(record, None, "face:other")
    assert not health.is_quarantined
    assert not record_of(db)[1].is_quarantined


def test_limits_and_people_outlive_a_restart(db):
    """A damaged entry counts as none."""
    head = SyncHead(
        epoch="aa",
        version=1,
        horizon=0,
        people=17,
        spaces={SPACE: SpaceHead(count=1, digest="0" * 16, limits=LIMITS, people=3)},
    )
    record_of(db)[0].receive_message(Decoded(channels.SYNC_HEAD, {}, head))
    again, _ = record_of(db)
    assert (again.people, again.record(SPACE).limits, again.record(SPACE).people) == (17, LIMITS, 3)
    db.set_config(f"space_on_record:{SPACE}", "{damaged")
    assert record_of(db)[0].record(SPACE).limits is None


def test_a_change_is_told_at_the_start_and_once_per_change(db):
    """Unchanged heads write nothing."""
    seen = []
    record = SpacesOnRecord(db, Health(), {SPACE: SpaceInfo(dimension=8, model_sha256=OURS)}, seen.append)
    for _ in range(3):
        receive_head(record, OURS)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("own", "recorded", "codes"),
    [
        ({}, {"detector": "cascade", "alignment": "box"}, []),
        ({"detector": "cascade", "alignment": "box"}, {}, []),
        ({"detector": "cascade"}, {"detector": "cascade"}, []),
        ({"detector": "cascade"}, {"detector": "scrfd"}, ["preparation-differs"]),
        ({"alignment": "box"}, {"alignment": "landmarks"}, ["preparation-differs"]),
        ({}, {"dimension": 4}, ["space-mismatch"]),
        ({}, {"dimension": 8}, []),
        (
            {"detector": "cascade"},
            {"detector": "yunet", "dimension": 4, "model_sha256": OTHER},
            ["model-differs", "preparation-differs", "space-mismatch"],
        ),
    ],
)
def test_each_difference_has_a_code_and_names_both_sides(own, recorded, codes):
    """What one side does not know is no difference."""
    found = find_differences(
        {SPACE: SpaceInfo(dimension=8, model_sha256=OURS, **own)}, {SPACE: SpaceOnRecord(**recorded)}
    )
    assert sorted(found) == codes
    if codes == ["preparation-differs"]:
        [sentence] = found.values()
        assert all(str(value) in sentence for value in (*own.values(), *recorded.values()))
