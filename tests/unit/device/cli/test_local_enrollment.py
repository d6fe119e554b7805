"""Local identities: kept in dev mode, treated as drift in production."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.digest import Digest
from device.enrollment.gallery_rows import GalleryRows
from device.enrollment.sync_manager import SyncManager
from device.enrollment.sync_requests import SyncOptions
from device.store.cursor import SnapshotProgress, SyncCursor
from device.store.db_manager import DatabaseManager
from tests.device_samples import (
    DIMENSION,
    SPACE,
    Clock,
    ModelRegistry,
    ScriptedLink,
    person,
    seeded,
    vector,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "faces.db"


def opened(path: Path, *, dev_mode: bool) -> DatabaseManager:
    manager = DatabaseManager(path, dev_mode, utc_now=Clock().utc_now)
    manager.initialize()
    return manager


@pytest.fixture
def dev(path: Path) -> DatabaseManager:
    return opened(path, dev_mode=True)


def at(version: int) -> SyncCursor:
    return SyncCursor("lobby", (SPACE,), "aa", version)


def enroll(db: DatabaseManager, user_id: str, *seeds: int) -> None:
    db.enroll_locally(user_id, SPACE, [(vector(seed), 0.9) for seed in seeds], detector="cascade")


def templates(db: DatabaseManager) -> list[tuple[str, bytes]]:
    user_ids, vectors = db.load_gallery(SPACE)
    return sorted(zip(user_ids, (row.tobytes() for row in vectors), strict=True))


def reset(db: DatabaseManager, *people: object, version: int) -> None:
    db.begin_snapshot(people, SnapshotProgress(at(version), version))
    db.finish_snapshot(at(version))


def test_a_local_template_stores_its_detector(dev: DatabaseManager, path: Path) -> None:
    """A template of the registry has no detector, also if it replaces a local one.

    The column is the one of seed 003.
    """

    def detectors() -> dict[str, str | None]:
        with closing(sqlite3.connect(path)) as file:
            return dict(file.execute("SELECT user_id, detector FROM enrolled_users"))

    enroll(dev, "EMP-1", 1)
    dev.upsert_enrollment("EMP-2", [1.0] * DIMENSION, SPACE, "scrfd", "Sample Name")
    dev.apply_delta([person("EMP-3", 1)], [], at(1))
    assert detectors() == {"EMP-1": "cascade", "EMP-2": "scrfd", "EMP-3": None}
    dev.apply_delta([person("EMP-1", 2)], [], at(2))
    reset(dev, person("EMP-1", 2), person("EMP-2", 3), version=3)
    assert detectors() == {"EMP-1": None, "EMP-2": None}


def test_is_local_returns_none_for_an_unknown_identity(dev: DatabaseManager) -> None:
    """`is_local` returns True for a local identity and None for an unknown one."""
    enroll(dev, "EMP-1", 1)
    dev.apply_delta([person("EMP-2", 1)], [], at(1))
    assert [dev.is_local(f"EMP-{n}") for n in (1, 2, 3)] == [True, False, None]


def test_in_dev_mode_local_identities_are_outside_of_the_digests(dev: DatabaseManager) -> None:
    """The registry has no local identities, so the compared digests omit them."""
    dev.apply_delta([person("EMP-2", 1, 2)], [], at(1))
    registry = {SPACE: Digest.of("EMP-2", SPACE, [vector(2)])}
    enroll(dev, "EMP-1", 11, 12)
    enroll(dev, "EMP-1", 13)
    assert templates(dev) == sorted([("EMP-1", vector(13)), ("EMP-2", vector(2))])
    assert dev.digests() == registry
    assert dev.verify()


@pytest.mark.parametrize("how", ["delta", "reset"])
def test_in_dev_mode_local_identities_survive_changes_of_others(dev: DatabaseManager, how: str) -> None:
    """A delta and a snapshot sync without the local identity keep its templates."""
    dev.apply_delta([person("EMP-2", 1, 2), person("EMP-3", 1, 3)], [], at(1))
    enroll(dev, "EMP-1", 11, 12)
    if how == "delta":
        dev.apply_delta([person("EMP-2", 2, 22)], ["EMP-3"], at(2))
    else:
        reset(dev, person("EMP-2", 2, 22), version=2)
    assert templates(dev) == sorted([("EMP-1", vector(11)), ("EMP-1", vector(12)), ("EMP-2", vector(22))])
    assert dev.digests() == {SPACE: Digest.of("EMP-2", SPACE, [vector(22)])}
    assert dev.verify()


@pytest.mark.parametrize("how", ["delta", "reset"])
@pytest.mark.parametrize("dev_mode", [True, False])
def test_an_identity_of_the_registry_replaces_a_local_one(path: Path, how: str, dev_mode: bool) -> None:
    """All local templates are replaced, and the digest equals the registry's."""
    db = opened(path, dev_mode=dev_mode)
    enroll(db, "EMP-1", 11, 12, 13)
    if how == "delta":
        db.apply_delta([person("EMP-1", 1, 1, 2)], [], at(1))
    else:
        reset(db, person("EMP-1", 1, 1, 2), version=1)
    assert templates(db) == sorted([("EMP-1", vector(1)), ("EMP-1", vector(2))])
    assert db.digests() == {SPACE: Digest.of("EMP-1", SPACE, [vector(1), vector(2)])}
    assert db.verify()
    assert db.is_local("EMP-1") is False


def test_a_deletion_by_the_registry_deletes_a_local_identity(dev: DatabaseManager) -> None:
    """The device does not recognise an identity that the registry deleted."""
    enroll(dev, "EMP-1", 11, 12)
    dev.apply_delta([], ["EMP-1"], at(1))
    assert templates(dev) == []
    assert dev.digests() == {}


def test_in_production_local_identities_are_not_exempt(path: Path) -> None:
    """A local identity counts in the digest and is removed by the next snapshot sync."""
    production = opened(path, dev_mode=False)
    enroll(production, "EMP-1", 11, 12)
    assert production.digests() == {SPACE: Digest.of("EMP-1", SPACE, [vector(11), vector(12)])}
    reset(production, person("EMP-2", 1, 2), version=1)
    assert templates(production) == [("EMP-2", vector(2))]
    assert production.verify()


class Camera:
    """A sync manager with its file, and a registry that answers its requests."""

    def __init__(self, path: Path, registry: ModelRegistry, *, dev_mode: bool) -> None:
        self.clock = Clock()
        self.link = ScriptedLink()
        self.rows: GalleryRows | None = None
        self.answered = 0
        self.registry = registry
        self.db = opened(path, dev_mode=dev_mode)
        self.sync = SyncManager(
            self.db,
            self.link,
            device_id="cam-001",
            site_id="lobby",
            spaces={SPACE: DIMENSION},
            source=seeded(),
            on_gallery=self._swap,
            options=SyncOptions(),
            clock=self.clock,
            utc_now=self.clock.utc_now,
        )

    def _swap(self, rows: GalleryRows) -> None:
        self.rows = rows

    def connect(self) -> int:
        """Connect, receive the head and answer requests; return the number of requests."""
        self.sync.connected(self.clock())
        self.receive(channels.SYNC_HEAD, self.registry.head())
        return self.answer_requests()

    def answer_requests(self) -> int:
        """Answer requests until none is open; return the total number of requests."""
        answered = self.answered
        for _ in range(20):
            self.clock.advance(1.0)
            self.sync.tick(self.clock())
            requests = self.link.of(channels.SYNC_REQUEST)
            if len(requests) == answered:
                return answered
            self.answered = answered = len(requests)
            self.receive(channels.SYNC_PAGE, self.registry.answer(requests[-1]))
        raise AssertionError("the device does not stop asking")

    def receive(self, channel: channels.Channel, message: object) -> None:
        self.sync.receive_message(Decoded(channel, {}, message))

    @property
    def known(self) -> set[str]:
        """Return the user ids in the gallery of recognition."""
        assert self.rows is not None
        return set(self.rows.user_ids)


@pytest.fixture
def registry() -> ModelRegistry:
    model = ModelRegistry()
    model.enroll("EMP-2", 2)
    return model


def test_in_dev_mode_a_local_identity_survives_syncs_heads_and_deltas(
    path: Path, registry: ModelRegistry
) -> None:
    """The device finds no drift, fetches no page twice and recognises both identities."""
    enroll(opened(path, dev_mode=True), "EMP-1", 11)
    camera = Camera(path, registry, dev_mode=True)
    camera.connect()
    assert camera.known == {"EMP-1", "EMP-2"}
    camera.receive(channels.SYNC_DELTA, registry.enroll("EMP-3", 3))
    camera.receive(channels.SYNC_HEAD, registry.head())
    assert camera.answer_requests() == 2
    assert camera.known == {"EMP-1", "EMP-2", "EMP-3"}
    assert "drift" not in camera.sync.get_sync_status().counts
    assert camera.sync.get_sync_status().spaces[SPACE].digest == registry.digest().hex


def test_leaving_dev_mode_removes_local_identities_at_the_next_sync(
    path: Path, registry: ModelRegistry
) -> None:
    """A snapshot sync runs although version and digest equal the registry's."""
    camera = Camera(path, registry, dev_mode=True)
    camera.connect()
    enroll(camera.db, "EMP-1", 11)
    camera.db.close()

    camera = Camera(path, registry, dev_mode=False)
    assert camera.known == {"EMP-1", "EMP-2"}
    camera.connect()
    assert camera.known == {"EMP-2"}
    assert list(camera.db.get_all_enrollments()) == ["EMP-2"]
    assert camera.sync.get_sync_status().counts["drift"] == 1


def test_in_production_a_local_identity_is_found_by_the_head(path: Path, registry: ModelRegistry) -> None:
    """The digest differs from the registry's, so a snapshot sync removes the identity."""
    Camera(path, registry, dev_mode=False).connect()
    enroll(opened(path, dev_mode=False), "EMP-1", 11)

    camera = Camera(path, registry, dev_mode=False)
    assert camera.known == {"EMP-1", "EMP-2"}
    camera.connect()
    assert camera.known == {"EMP-2"}


def test_entering_dev_mode_keeps_local_identities(path: Path, registry: ModelRegistry) -> None:
    """They count in the digest until the next snapshot sync and are local afterwards."""
    enroll(opened(path, dev_mode=False), "EMP-1", 11)
    camera = Camera(path, registry, dev_mode=True)
    camera.connect()
    assert camera.known == {"EMP-1", "EMP-2"}
    assert camera.sync.get_sync_status().spaces[SPACE].digest == registry.digest().hex
    again = Camera(path, registry, dev_mode=True)
    again.connect()
    assert "drift" not in again.sync.get_sync_status().counts
