"""Test that a damaged database is replaced and its events are saved."""

import random
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest

from broker_bridge.contract.messages import Event
from device.store.connection import StoreDamagedError, StoreError, migrations
from device.store.db_manager import DatabaseManager
from device.store.outbox import Outbox
from device.store.repair import mark_damaged

NOW = datetime(2026, 1, 15, 10, 0, 0, tzinfo=timezone.utc)
COUNT = 300


def event(n: int) -> Event:
    return Event.model_validate(
        {
            "event_id": f"EV1-1736942400000-{n:06x}",
            "device_id": "cam-001",
            "user_id": "EMP-12345",
            "event_type": "facial_id",
            "timestamp": "2026-01-15T10:00:00.000Z",
            "confidence": 0.92,
        }
    )


def outbox(db: DatabaseManager) -> Outbox:
    return Outbox(db.connection, utc_now=lambda: NOW, source=random.Random(1))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a database with events."""
    path = tmp_path_factory.mktemp("filled") / "device.db"
    db = DatabaseManager(path)
    db.initialize()
    box = outbox(db)
    for n in range(COUNT):
        box.put(event(n))
    db.connection.truncate_log()
    db.close()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, filled: bytes) -> Path:
    path = tmp_path / "device.db"
    path.write_bytes(filled)
    return path


def saved(path: Path) -> int:
    """Open the database as a device does; return the number of its events."""
    db = DatabaseManager(path)
    db.initialize()
    try:
        box = outbox(db)
        depth = box.depth
        assert len(box.due(0.0, 500)) == min(depth, 200)
        box.put(event(COUNT + 1))
        assert db.damage is not None
        assert db.cursor() is None
        return depth
    finally:
        db.close()


def _garbage_header(content: bytearray) -> None:
    content[:100] = b"\xff" * 100


def _garbage_inside(content: bytearray) -> None:
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = random.Random(1).randbytes(8192)


def _cut(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize(
    ("damage", "least"),
    [(_garbage_header, COUNT), (_garbage_inside, COUNT // 2), (_cut, 1)],
)
def test_events_of_a_damaged_file_are_saved(
    path: Path, damage: Callable[[bytearray], None], least: int
) -> None:
    """Every row that can be read is sent."""
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    assert saved(path) >= least


@pytest.mark.parametrize("content", [b"no database " * 1000, b"x", b"\0" * 8192, b"\xff" * 50])
def test_a_file_without_anything_readable_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    """It is unchanged, for its owner alone, and there is one at most."""
    path = tmp_path / "device.db"
    for _ in range(2):
        path.write_bytes(content)
        assert saved(path) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["device.db", "device.db.damaged"]
    assert (tmp_path / "device.db.damaged").read_bytes() == content


def test_an_empty_file_with_a_log_is_damage(path: Path) -> None:
    """Truncating the file alone leaves a log that fits no file."""
    path.with_name("device.db-wal").write_bytes(b"log" * 100)
    path.write_bytes(b"")
    assert saved(path) == 0


def test_a_folder_in_its_place_is_moved_aside(tmp_path: Path) -> None:
    """A container runtime makes one for a mounted file that is missing."""
    path = tmp_path / "device.db"
    path.mkdir()
    assert saved(path) == 0
    assert (tmp_path / "device.db.damaged").is_dir()


@pytest.mark.parametrize("table", ["outbox", "sync_cursors", "device_config"])
def test_a_missing_table_is_damage(path: Path, table: str) -> None:
    """Events in other tables are saved."""
    connection = sqlite3.connect(path)
    connection.execute(f"DROP TABLE {table}")
    connection.commit()
    connection.close()
    assert saved(path) == (0 if table == "outbox" else COUNT)


def test_a_malformed_schema_is_damage(path: Path) -> None:
    """The tables of the sound entries are saved."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE (' WHERE name = 'device_config'")
    connection.commit()
    connection.close()
    assert saved(path) == COUNT


def test_damage_of_the_running_device_is_repaired_at_the_next_start(path: Path) -> None:
    """The mark counts, and nothing is kept aside if all was read."""
    mark_damaged(path)
    assert saved(path) == COUNT
    assert [file.name for file in path.parent.iterdir()] == ["device.db"]
    db = DatabaseManager(path)
    db.initialize()
    assert (db.damage, outbox(db).depth) == (None, COUNT + 1)
    db.close()


def test_damage_found_by_a_query_is_reported_at_once(path: Path) -> None:
    """The program ends then, so that its next start repairs the file."""
    db = DatabaseManager(path)
    db.initialize()
    found: list[bool] = []
    db.connection.on_damage = lambda: found.append(True)
    with pytest.raises(StoreDamagedError), db.connection.reading():
        raise sqlite3.DatabaseError("database disk image is malformed")
    assert found == [True]
    with pytest.raises(StoreError), db.connection.reading():
        raise sqlite3.OperationalError("database or disk is full")
    assert found == [True]
    db.close()


def test_a_power_cut_during_the_repair_loses_nothing(path: Path) -> None:
    """Between its two renames the fresh file has the events."""
    path.rename(path.with_name("device.db.repaired"))
    db = DatabaseManager(path)
    db.initialize()
    assert outbox(db).depth == COUNT
    db.close()


def test_what_is_no_damage_stays(path: Path) -> None:
    """A file of newer software is sound; another software would lose what it knows."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {migrations()[-1][0] + 1}")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer software"):
        DatabaseManager(path).initialize()
    assert path.read_bytes() == before
    assert not path.with_name("device.db.damaged").exists()


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Let no file grow past `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("damage", [_garbage_header, None])
def test_a_disk_without_room_for_the_rows_does_not_keep_a_device_down(
    path: Path, damage: Callable[[bytearray], None] | None
) -> None:
    """It waits aside; a start with more room saves its events beside the new ones."""
    db = DatabaseManager(path)
    db.initialize()
    box = outbox(db)
    for n in range(COUNT, 2 * COUNT):
        box.put(event(n), b"\xff\xd8" + b"x" * 4000)
    db.connection.truncate_log()
    db.close()
    content = bytearray(path.read_bytes())
    if damage is not None:
        damage(content)
    path.write_bytes(content)
    mark_damaged(path)
    for n in range(2):
        with longest_file(len(content) // 2):
            db = DatabaseManager(path)
            db.initialize()
            assert "free s" in str(db.damage)
            outbox(db).put(event(2 * COUNT + n))
            assert outbox(db).depth == n + 1
            db.close()
    assert path.with_name("device.db.unsaved").exists()

    db = DatabaseManager(path)
    db.initialize()
    assert f"{2 * COUNT} waiting" in str(db.damage)
    assert outbox(db).depth == 2 * COUNT + 2
    db.close()
    assert [file.name for file in path.parent.iterdir()] == ["device.db"]


def test_a_mark_without_its_file_is_of_no_use(path: Path) -> None:
    """A damaged file that was moved away by hand leaves the mark."""
    mark_damaged(path)
    path.unlink()
    db = DatabaseManager(path)
    db.initialize()
    assert db.damage is None
    db.close()
    assert [file.name for file in path.parent.iterdir()] == ["device.db"]
