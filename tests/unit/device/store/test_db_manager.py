"""The device's gallery in a real SQLite file."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.errors import ContractError
from device.store.connection import StoreError, migrations
from device.store.cursor import SnapshotProgress, SyncCursor
from device.store.db_manager import DatabaseManager
from tests.device_samples import DIMENSION, SPACE, Clock, person, vector

CURSOR = SyncCursor("lobby", (SPACE,), "aa", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "faces.db"


@pytest.fixture
def db(path: Path) -> DatabaseManager:
    manager = DatabaseManager(path, utc_now=Clock().utc_now)
    manager.initialize()
    return manager


def at(version: int) -> SyncCursor:
    return SyncCursor("lobby", (SPACE,), "aa", version)


def raw(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


def test_a_local_enrollment_comes_back_as_unit_vectors_by_user_id(db: DatabaseManager) -> None:
    """Seed 003 has the calls `upsert_enrollment` and `get_all_enrollments`."""
    db.upsert_enrollment("EMP-1", np.array([3.0, 4.0]), "ArcFace")
    db.upsert_enrollment("EMP-1", np.array([0.0, 2.0]), "ArcFace")

    enrolled = db.get_all_enrollments()

    assert list(enrolled) == ["EMP-1"]
    assert enrolled["EMP-1"].dtype == np.float32
    np.testing.assert_allclose(enrolled["EMP-1"], [0.0, 1.0])


@pytest.mark.parametrize("unusable", [[0.0, 0.0], [float("nan"), 1.0], [], [[1.0], [2.0]]])
def test_an_unusable_vector_is_refused(db: DatabaseManager, unusable: list) -> None:
    """Zero, NaN, empty or nested vectors raise ContractError, and nothing is stored."""
    with pytest.raises(ContractError):
        db.upsert_enrollment("EMP-1", unusable, "ArcFace")
    assert db.get_all_enrollments() == {}


def test_the_tables_have_seed_003s_columns(db: DatabaseManager, path: Path) -> None:
    """All columns have the names and types that firmware reads."""
    with closing(sqlite3.connect(path)) as reader:
        users, config = (
            {row[1]: row[2] for row in reader.execute(f"PRAGMA table_info({table})")}
            for table in ("enrolled_users", "device_config")
        )
        unique = reader.execute(
            "SELECT ii.name FROM pragma_index_list('enrolled_users') il, pragma_index_info(il.name) ii "
            'WHERE il."unique"'
        ).fetchall()
    assert users.items() >= {
        "id": "INTEGER", "user_id": "TEXT", "display_name": "TEXT", "model": "TEXT", "detector": "TEXT",
        "embedding": "BLOB", "embedding_dim": "INTEGER", "sync_version": "INTEGER", "synced_at": "TEXT",
        "created_at": "TEXT",
    }.items()  # fmt: skip
    assert config == {"key": "TEXT", "value": "TEXT", "updated_at": "TEXT"}
    assert unique == [("user_id",)]


def test_the_file_is_opened_durable_and_private(db: DatabaseManager) -> None:
    """WAL, FULL, secure_delete and foreign keys are on; only the owner can read it."""
    with db.connection.reading() as sql:
        values = [
            sql.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "user_version")
        ]
    assert values == ["wal", 2, 1, 1, migrations()[-1][0]]
    assert db.connection.path.stat().st_mode & 0o077 == 0


def test_a_delta_commits_rows_cursor_and_digests_together(db: DatabaseManager) -> None:
    """Several templates of an identity are in two tables and load as one gallery."""
    db.apply_delta([person("A", 1, 11, 12), person("B", 2, 13)], [], at(2))
    digests = db.apply_delta([person("C", 3, 14)], ["B"], at(3))

    user_ids, vectors = db.load_gallery(SPACE)

    assert sorted(user_ids) == ["A", "A", "C"]
    assert {row.tobytes() for row in vectors} == {vector(11), vector(12), vector(14)}
    assert db.cursor() == at(3)
    expected = Digest.of("A", SPACE, [vector(11), vector(12)]).plus(Digest.of("C", SPACE, [vector(14)]))
    assert digests == db.digests() == {SPACE: expected}
    assert db.verify()


def test_a_failed_change_is_rolled_back(db: DatabaseManager) -> None:
    """Rows, cursor and digests stay as they were."""
    db.apply_delta([person("A", 1)], [], at(1))
    before = db.digests()
    broken = person("C", 2).model_copy(update={"user_id": None})

    with pytest.raises((StoreError, AttributeError)):
        db.apply_delta([person("B", 2), broken], ["A"], at(2))

    assert list(db.get_all_enrollments()) == ["A"]
    assert (db.cursor(), db.digests(), db.verify()) == (at(1), before, True)


def test_an_identity_without_supported_templates_is_removed(db: DatabaseManager) -> None:
    """An upsert that leaves no template deletes the row."""
    db.apply_delta([person("A", 1, 1, 2)], [], at(1))
    db.apply_delta([person("A", 2).model_copy(update={"templates": []})], [], at(2))
    assert db.get_all_enrollments() == {}
    assert db.digests() == {}


def test_templates_of_an_identity_may_be_in_several_spaces(db: DatabaseManager) -> None:
    """Each space has its own gallery and digest."""
    both = person("A", 1, 1)
    gait = person("A", 1, 2, space="gait:test-4")
    db.apply_delta([both.model_copy(update={"templates": [*both.templates, *gait.templates]})], [], at(1))
    assert db.load_gallery("gait:test-4")[1].shape == (1, 4)
    assert db.load_gallery(SPACE)[1].shape == (1, DIMENSION)
    assert set(db.digests()) == {SPACE, "gait:test-4"}


@pytest.mark.parametrize("change", ["removed", "replaced", "reset"])
def test_a_removed_template_leaves_no_copy_in_the_file_or_its_log(
    db: DatabaseManager, path: Path, change: str
) -> None:
    """The test searches all files of the database, also with many neighbours."""
    db.apply_delta([person(f"EMP-{n}", 1, n, n + 1000) for n in range(300)], [], at(1))
    secret = vector(7)
    assert secret in raw(path)

    if change == "removed":
        db.apply_delta([], ["EMP-7"], at(2))
    elif change == "replaced":
        db.apply_delta([person("EMP-7", 2, 5000, 5001)], [], at(2))
    else:
        others = [person(f"EMP-{n}", 1, n) for n in range(300) if n != 7]
        db.begin_snapshot(others, SnapshotProgress(at(2), 2))
        db.finish_snapshot(at(2))

    assert secret not in raw(path)
    assert vector(8) in raw(path)


def test_display_names_are_stored_in_dev_mode_only(path: Path) -> None:
    """Production stores none and deletes those of an earlier dev mode."""
    dev = DatabaseManager(path, dev_mode=True)
    dev.initialize()
    dev.apply_delta([person("A", 1, name="Sample Name")], [], at(1))
    assert b"Sample Name" in raw(path)
    dev.close()

    production = DatabaseManager(path)
    production.initialize()
    production.apply_delta([person("B", 2, name="Other Name")], [], at(2))
    assert b"Name" not in raw(path).replace(b"display_name", b"")


def test_a_flipped_bit_is_drift(db: DatabaseManager, path: Path) -> None:
    """SQLite's check finds nothing, but the digest differs."""
    db.apply_delta([person("A", 1), person("B", 1, 2)], [], at(1))
    db.close()
    content = bytearray(path.read_bytes())
    where = content.index(vector(2))
    content[where + 3] ^= 1
    path.write_bytes(content)

    again = DatabaseManager(path)
    again.initialize()

    assert not again.verify()


def test_a_file_of_newer_software_is_not_changed(db: DatabaseManager, path: Path) -> None:
    """Older software does not damage it."""
    with db.connection.reading() as sql:
        sql.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="written by newer software"):
        DatabaseManager(path).initialize()


def test_a_snapshot_sync_keeps_the_old_gallery_until_its_end(db: DatabaseManager, path: Path) -> None:
    """Pages are staged on disk, also over a restart.

    The swap is one transaction that deletes all other identities.
    """
    db.apply_delta([person("old", 1), person("both", 1, 2)], [], at(1))
    db.begin_snapshot([person("both", 5, 3), person("late", 5, 9)], SnapshotProgress(at(5), 8))
    assert sorted(db.get_all_enrollments()) == ["both", "old"]
    db.close()

    again = DatabaseManager(path)
    again.initialize()
    assert again.snapshot_progress() == SnapshotProgress(at(5), 8)
    again.add_snapshot_page([person("new", 7, 4, 5)], ["late"], SnapshotProgress(at(8), 8))
    digests = again.finish_snapshot(at(8))

    assert sorted(again.load_gallery(SPACE)[0]) == ["both", "new", "new"]
    assert again.cursor() == at(8)
    assert again.snapshot_progress() is None
    assert digests == again.digests()
    assert again.verify()


def test_several_threads_share_one_connection(db: DatabaseManager) -> None:
    """Concurrent changes of the gallery are all stored."""

    def enroll(worker: int) -> None:
        for n in range(20):
            db.upsert_enrollment(f"EMP-{worker}-{n}", np.arange(1.0, 5.0), "face:test-4")

    threads = [threading.Thread(target=enroll, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(db.get_all_enrollments()) == 80
    assert db.verify()
