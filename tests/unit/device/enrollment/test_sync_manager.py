"""The sync manager with a scripted link and a model registry, on real SQLite."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, Decoded
from broker_bridge.contract.messages import (
    SyncApplied,
    SyncPage,
    SyncProgress,
    SyncRequest,
    WireError,
    WireTemplate,
)
from device.enrollment.gallery_rows import GalleryRows
from device.enrollment.sync_manager import SyncManager
from device.enrollment.sync_requests import SyncOptions
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from tests.device_samples import DIMENSION, SPACE, Clock, ModelRegistry, ScriptedLink, person, seeded, vector


class Device:
    """A sync manager with its file, its link and the rows of recognition."""

    def __init__(
        self,
        path: Path,
        *,
        site: str = "lobby",
        clock: Clock | None = None,
        dev_mode: bool = False,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.link = ScriptedLink()
        self.db = DatabaseManager(path, dev_mode, utc_now=self.clock.utc_now)
        self.db.initialize()
        self.rows: GalleryRows | None = None
        self.sync = SyncManager(
            self.db,
            self.link,
            device_id="cam-001",
            site_id=site,
            spaces={SPACE: DIMENSION},
            source=seeded(),
            on_gallery=self._swap,
            options=SyncOptions(**options),
            clock=self.clock,
            utc_now=self.clock.utc_now,
        )

    def _swap(self, rows: GalleryRows) -> None:
        self.rows = rows

    def connect(self) -> None:
        self.sync.connected(self.clock())
        self.tick()

    def connect_and_wait(self) -> None:
        """Connect and wait until the jitter of a fleet that connects together is over."""
        self.connect()
        self.clock.advance(0.5)
        self.tick()

    def tick(self) -> None:
        self.sync.tick(self.clock())

    def receive(self, channel: Channel[Any], message: Any) -> None:
        self.sync.receive_message(Decoded(channel, {}, message))
        self.tick()

    @property
    def requests(self) -> list[SyncRequest]:
        return self.link.of(channels.SYNC_REQUEST)

    @property
    def applied(self) -> list[SyncApplied]:
        return self.link.of(channels.SYNC_APPLIED)

    def sync_with(self, registry: ModelRegistry, limit: int | None = None, rounds: int = 50) -> None:
        """Answer requests until the device sends no more."""
        answered = len(self.requests) - 1 if self.sync.get_sync_status().in_progress else len(self.requests)
        for _ in range(rounds):
            if answered == len(self.requests):
                self.clock.advance(1.0)
                self.tick()
            if answered == len(self.requests):
                return
            answered = len(self.requests)
            self.receive(channels.SYNC_PAGE, registry.answer(self.requests[-1], limit))
        raise AssertionError(f"the device still sends requests after {rounds} rounds")

    @property
    def user_ids(self) -> list[str]:
        assert self.rows is not None
        return sorted(set(self.rows.user_ids))

    def assert_equals(self, registry: ModelRegistry) -> None:
        """Assert that disk, memory and digest equal the registry."""
        cursor = self.db.cursor()
        assert cursor is not None
        assert (cursor.epoch, cursor.version) == (registry.epoch, registry.version)
        expected = registry.digest()
        assert self.db.digests().get(SPACE, type(expected)()) == expected
        assert self.db.verify()
        assert self.rows is not None
        rows = sorted(
            (user, row.tobytes()) for user, row in zip(self.rows.user_ids, self.rows.vectors, strict=True)
        )
        wanted = sorted(
            (identity.user_id, t.vector) for identity in registry.people.values() for t in identity.templates
        )
        assert rows == wanted
        assert self.rows.version == registry.version


@pytest.fixture
def registry() -> ModelRegistry:
    model = ModelRegistry()
    for n in range(7):
        model.enroll(f"EMP-{n}", n, n + 100)
    model.delete("EMP-3")
    return model


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device.db")


@pytest.fixture
def synced(device: Device, registry: ModelRegistry) -> Device:
    device.connect()
    device.sync_with(registry)
    device.assert_equals(registry)
    return device


def test_an_empty_device_fetches_everything_page_by_page(device: Device, registry: ModelRegistry) -> None:
    """Each page is requested from the last version of the page before.

    The first request is sent at once; at the end the device publishes what it applied.
    """
    device.connect()
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)
    assert [request.since_version for request in device.requests] == [0, 3, 7]
    assert [request.reset_head_version for request in device.requests] == [None, 8, 8]
    assert len(device.applied) == 1
    assert device.applied[0].version == 8
    assert device.applied[0].spaces[SPACE].digest == registry.digest().hex
    assert device.applied[0].spaces[SPACE].count == 12


def test_a_live_delta_is_applied_at_once_and_confirmed(synced: Device, registry: ModelRegistry) -> None:
    """No request is needed, so a deletion takes effect in under a second."""
    requests_before = len(synced.requests)
    synced.receive(channels.SYNC_DELTA, registry.enroll("NEW", 50))
    synced.receive(channels.SYNC_DELTA, registry.delete("EMP-1"))
    synced.assert_equals(registry)
    assert "EMP-1" not in synced.user_ids
    assert [applied.version for applied in synced.applied[-2:]] == [9, 10]
    assert len(synced.requests) == requests_before


def test_a_repeated_delta_changes_nothing(synced: Device, registry: ModelRegistry) -> None:
    """A late delta with an older version changes nothing either."""
    first, second = registry.enroll("NEW", 50), registry.delete("NEW")
    for delta in (first, second, second, first):
        synced.receive(channels.SYNC_DELTA, delta)
    synced.assert_equals(registry)


def test_a_gap_is_requested_within_half_a_second(synced: Device, registry: ModelRegistry) -> None:
    """The delta after a lost one shows the gap."""
    requests_before = len(synced.requests)
    registry.enroll("LOST", 50)
    synced.receive(channels.SYNC_DELTA, registry.enroll("NEW", 51))
    synced.clock.advance(0.5)
    synced.tick()
    assert [request.since_version for request in synced.requests[requests_before:]] == [8]
    synced.sync_with(registry)
    synced.assert_equals(registry)


def test_a_head_before_its_delta_costs_no_request(synced: Device, registry: ModelRegistry) -> None:
    """Head and delta may arrive in either order."""
    requests_before = len(synced.requests)
    delta = registry.enroll("NEW", 50)
    synced.sync.receive_message(Decoded(channels.SYNC_HEAD, {}, registry.head()))
    synced.receive(channels.SYNC_DELTA, delta)
    synced.clock.advance(5.0)
    synced.tick()
    assert len(synced.requests) == requests_before


def test_a_reconnected_device_requests_only_if_the_head_has_moved(
    synced: Device, registry: ModelRegistry
) -> None:
    """A fleet that reconnects and is up to date sends no request."""
    requests_before = len(synced.requests)
    synced.connect()
    synced.receive(channels.SYNC_HEAD, registry.head())
    synced.clock.advance(60.0)
    synced.tick()
    assert len(synced.requests) == requests_before
    assert synced.applied[-1].version == registry.version

    registry.delete("EMP-0")
    synced.connect()
    synced.receive(channels.SYNC_HEAD, registry.head())
    synced.clock.advance(0.5)
    synced.tick()
    assert len(synced.requests) == requests_before + 1
    synced.sync_with(registry)
    synced.assert_equals(registry)


def test_after_a_long_absence_the_device_requests_a_page(synced: Device, registry: ModelRegistry) -> None:
    """A retained head may be as old as the absence.

    A stale gallery needs an answer.
    """
    requests_before = len(synced.requests)
    synced.sync.disconnected()
    synced.clock.advance(3600.0)
    synced.connect()
    synced.receive(channels.SYNC_HEAD, registry.head())
    synced.sync_with(registry)
    assert len(synced.requests) == requests_before + 1
    assert synced.sync.synced_at is not None
    assert (synced.clock.utc_now() - synced.sync.synced_at).total_seconds() < 5


def test_a_fleet_that_starts_together_spreads_its_requests(synced: Device) -> None:
    """A device with a gallery waits up to half a second; an empty one does not wait."""
    again = Device(synced.db.connection.path, clock=synced.clock)
    again.connect()
    assert again.requests == []
    again.clock.advance(0.5)
    again.tick()
    assert len(again.requests) == 1


def test_without_a_head_a_reconnected_device_sends_a_request(synced: Device) -> None:
    """The broker may have lost its retained messages."""
    requests_before = len(synced.requests)
    synced.connect()
    assert len(synced.requests) == requests_before
    synced.clock.advance(1.0)
    synced.tick()
    assert len(synced.requests) == requests_before + 1


def test_an_unanswered_request_is_repeated_under_its_own_id(device: Device, registry: ModelRegistry) -> None:
    """A late answer to either copy counts once."""
    device.connect()
    device.clock.advance(10.0)
    device.tick()
    first, second = device.requests
    assert first == second
    answer = registry.answer(first)
    device.receive(channels.SYNC_PAGE, answer)
    device.receive(channels.SYNC_PAGE, answer)
    device.assert_equals(registry)
    assert device.sync.get_sync_status().counts["pages_ignored"] == 1


def test_another_epoch_replaces_the_gallery_at_its_end_only(synced: Device, registry: ModelRegistry) -> None:
    """After a restored backup the old gallery is used until the snapshot is complete."""
    old = synced.user_ids
    registry.restore("bb", 4)
    registry.enroll("AFTER", 60)
    synced.receive(channels.SYNC_HEAD, registry.head())
    synced.clock.advance(0.5)
    synced.tick()
    synced.receive(channels.SYNC_PAGE, registry.answer(synced.requests[-1], 2))
    assert synced.user_ids == old
    synced.sync_with(registry, limit=2)
    synced.assert_equals(registry)
    assert "AFTER" in synced.user_ids


def test_a_device_below_the_horizon_gets_a_snapshot(synced: Device, registry: ModelRegistry) -> None:
    """The missed tombstone is purged, so the snapshot removes what it does not name."""
    registry.delete("EMP-2")
    registry.purge()
    registry.enroll("NEW", 70)
    synced.receive(channels.SYNC_HEAD, registry.head())
    synced.sync_with(registry, limit=2)
    synced.assert_equals(registry)
    assert synced.sync.get_sync_status().counts["resets"] == 2


def test_a_snapshot_sync_continues_after_a_restart(tmp_path: Path, registry: ModelRegistry) -> None:
    """It continues from the last committed page."""
    device = Device(tmp_path / "device.db")
    device.connect()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    device.db.close()

    again = Device(tmp_path / "device.db")
    again.connect()
    assert (again.requests[0].since_version, again.requests[0].reset_head_version) == (3, 8)
    again.sync_with(registry, limit=3)
    again.assert_equals(registry)


def test_the_next_page_is_requested_before_this_one_is_written(
    device: Device, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge reads while the device writes, at most one page ahead."""
    requested_before_write = []
    begin = device.db.begin_snapshot

    def begin_snapshot(*page: Any) -> None:
        requested_before_write.append([request.since_version for request in device.requests])
        begin(*page)

    monkeypatch.setattr(device.db, "begin_snapshot", begin_snapshot)
    device.connect()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    assert requested_before_write == [[0, 3]]
    assert len(device.requests) == 2


def answer_with_pages(registry: ModelRegistry, request: SyncRequest, limit: int) -> list[SyncPage]:
    """Return the pages that a bridge sends for one request."""
    pages: list[SyncPage] = []
    for remaining in range((request.pages or 1) - 1, -1, -1):
        page = registry.answer(request, limit)
        pages.append(page.model_copy(update={"more": True} if remaining and not page.done else {}))
        if page.done:
            break
        position = {
            "epoch": page.epoch,
            "since_version": page.to_version,
            "reset_head_version": page.head_version if page.reset else request.reset_head_version,
        }
        request = request.model_copy(update=position)
    return pages


def test_several_pages_answer_one_request(tmp_path: Path, registry: ModelRegistry) -> None:
    """The next request follows the last page of an answer.

    A page that comes twice changes nothing.
    """
    device = Device(tmp_path / "device.db", pages=2)
    device.connect()
    first, second = answer_with_pages(registry, device.requests[-1], 2)
    for page in (first, second, second, first):
        device.receive(channels.SYNC_PAGE, page)
    assert [(request.since_version, request.pages) for request in device.requests] == [(0, 2), (5, 2)]
    assert device.sync.get_sync_status().counts["resets"] == 1
    third, fourth = answer_with_pages(registry, device.requests[-1], 2)
    assert (third.more, fourth.done) == (True, True)
    for page in (third, third, fourth):
        device.receive(channels.SYNC_PAGE, page)
    device.assert_equals(registry)
    assert len(device.requests) == 2


def test_a_page_that_does_not_follow_is_requested(device: Device, registry: ModelRegistry) -> None:
    """The sync continues after the last page that came."""
    device.connect()
    pages = answer_with_pages(registry, device.requests[-1], 2)
    device.receive(channels.SYNC_PAGE, pages[0])
    assert len(device.requests) == 1
    device.clock.advance(6.0)
    device.tick()
    first, repeated = device.requests
    assert (repeated.request_id, repeated.since_version) == (first.request_id, pages[0].to_version)
    assert repeated.reset_head_version == 8
    for page in answer_with_pages(registry, repeated, 2):
        device.receive(channels.SYNC_PAGE, page)
    device.assert_equals(registry)


def test_a_first_sync_is_not_in_the_gallery_until_it_is_complete(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    """Recognition, firmware and a restarted device get no incomplete gallery."""
    device = Device(tmp_path / "device.db")
    for last in (False, True):
        device.connect()
        device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
        assert device.user_ids == []
        assert device.sync.synced_at is None
        assert device.sync.position() is None
        assert device.db.get_all_enrollments() == {}
        if not last:
            device.db.close()
            device = Device(tmp_path / "device.db")
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)


def test_changes_during_a_first_sync_have_their_last_state(device: Device, registry: ModelRegistry) -> None:
    """A delta is not applied to an incomplete gallery; later pages have its changes.

    The identities are deleted, and enrolled again with other faces.
    """
    device.connect()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    device.receive(channels.SYNC_DELTA, registry.delete("EMP-0"))
    device.receive(channels.SYNC_DELTA, registry.enroll("EMP-1", 90, 91, 92))
    assert device.user_ids == []
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)
    content = b"".join(file.read_bytes() for file in device.db.connection.path.parent.iterdir())
    assert vector(0) not in content
    assert vector(1) not in content


@pytest.mark.parametrize("how", ["epoch", "site"])
def test_an_aborted_first_sync_leaves_no_vectors(tmp_path: Path, registry: ModelRegistry, how: str) -> None:
    """The registry has another epoch, or the device moved to another site."""
    device = Device(tmp_path / "device.db")
    device.connect()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    device.db.close()
    other = ModelRegistry("bb")
    other.enroll("OTHER", 500)
    again = Device(tmp_path / "device.db", site="gate" if how == "site" else "lobby")
    again.connect()
    again.sync_with(other)
    again.assert_equals(other)
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert vector(0) not in content


def test_a_page_that_cannot_be_written_is_requested_again(
    device: Device, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the request ahead is dropped and the stored cursor continues."""
    device.connect()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    with monkeypatch.context() as full:

        def refuse(*_: Any) -> None:
            raise StoreError("the disk is full")

        full.setattr(device.db, "add_snapshot_page", refuse)
        with pytest.raises(StoreError):
            device.sync.receive_message(
                Decoded(channels.SYNC_PAGE, {}, registry.answer(device.requests[-1], 3))
            )
    assert not device.sync.get_sync_status().in_progress
    device.clock.advance(10.0)
    device.tick()
    assert device.requests[-1].since_version == 3
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)


def test_a_long_sync_reports_its_progress(device: Device, registry: ModelRegistry) -> None:
    """A snapshot sync counts staged identities; a catch-up has versions only."""
    assert device.sync.progress() is None
    device.connect()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    assert device.sync.progress() == SyncProgress(version=3, head_version=8, people=3)
    device.sync_with(registry)
    assert device.sync.progress() is None

    for n in range(4):
        registry.enroll(f"NEW-{n}", 60 + n)
    device.sync.sync_now()
    device.tick()
    device.receive(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    assert device.sync.progress() == SyncProgress(version=11, head_version=12)
    device.sync_with(registry)
    assert device.sync.progress() is None


def test_a_device_in_dev_mode_gets_names_live(tmp_path: Path, registry: ModelRegistry) -> None:
    """Deltas have no names, so the device requests a page.

    It applies a removal at once.
    """
    device = Device(tmp_path / "device.db", dev_mode=True)
    device.connect()
    device.sync_with(registry)

    def names() -> dict[str, str | None]:
        with device.db.connection.reading() as sql:
            return dict(sql.execute("SELECT user_id, display_name FROM enrolled_users"))

    for name in ("First Name", "Second Name"):
        delta = registry.enroll("NEW", 50)
        device.receive(channels.SYNC_DELTA, delta)
        registry.people["NEW"] = registry.people["NEW"].model_copy(update={"display_name": name})
        device.clock.advance(0.5)
        device.tick()
        device.sync_with(registry)
        assert names()["NEW"] == name
    requests_before = len(device.requests)
    device.receive(channels.SYNC_DELTA, registry.delete("NEW"))
    assert "NEW" not in device.user_ids
    assert len(device.requests) == requests_before
    device.assert_equals(registry)


def test_a_snapshot_does_not_undo_a_delta(synced: Device, registry: ModelRegistry) -> None:
    """The swap waits until the snapshot passes the version of the live gallery."""
    synced.sync.request_sync(0)
    synced.tick()
    stale = registry.answer(synced.requests[-1])
    synced.receive(channels.SYNC_DELTA, registry.delete("EMP-0"))
    assert "EMP-0" not in synced.user_ids
    synced.receive(channels.SYNC_PAGE, stale)
    assert "EMP-0" not in synced.user_ids
    synced.sync_with(registry)
    synced.assert_equals(registry)


def test_a_registry_that_went_back_within_its_epoch_is_followed(
    synced: Device, registry: ModelRegistry
) -> None:
    """A registry below the device's version is followed without a loop of requests."""
    registry.restore(registry.epoch, 4)
    synced.sync.request_sync(0)
    synced.tick()
    synced.sync_with(registry, rounds=4)
    synced.assert_equals(registry)


def test_drift_starts_a_snapshot_sync(synced: Device, registry: ModelRegistry) -> None:
    """Other templates at an equal version are counted and fetched again."""
    synced.db.apply_delta([], ["EMP-2"], synced.db.cursor())  # type: ignore[arg-type]
    again = Device(synced.db.connection.path, clock=synced.clock)
    again.connect_and_wait()
    again.receive(channels.SYNC_PAGE, registry.answer(again.requests[-1]))
    again.receive(channels.SYNC_HEAD, registry.head())
    again.clock.advance(0.5)
    again.tick()
    assert again.requests[-1].since_version == 0
    again.sync_with(registry)
    again.assert_equals(registry)
    assert again.sync.get_sync_status().counts["drift"] == 1


def test_a_flipped_bit_on_the_disk_is_found_at_the_start_and_repaired(
    synced: Device, registry: ModelRegistry
) -> None:
    """The damaged vector is not compared with faces until then."""
    path = synced.db.connection.path
    synced.db.close()
    content = bytearray(path.read_bytes())
    content[content.index(vector(2)) + 3] ^= 0x40
    path.write_bytes(content)

    again = Device(path)
    assert again.rows is not None
    assert np.isfinite(again.rows.vectors).all()
    again.connect_and_wait()
    assert again.requests[0].since_version == 0
    again.sync_with(registry)
    again.assert_equals(registry)


def test_lasting_drift_does_not_cause_a_loop_of_requests(synced: Device, registry: ModelRegistry) -> None:
    """At most one snapshot sync a minute runs, then ever fewer."""
    wrong = registry.head().model_copy(update={"spaces": {}})
    for _ in range(50):
        synced.receive(channels.SYNC_HEAD, wrong)
        synced.sync_with(registry)
    assert synced.clock() < 1000.0 + 110
    assert 2 <= synced.sync.get_sync_status().counts["resets"] <= 3


def test_an_invalid_template_is_left_out_and_reported(synced: Device, registry: ModelRegistry) -> None:
    """Its neighbours apply; `SyncApplied` has the code and no vector."""
    delta = registry.enroll("GOOD", 50)
    nan = np.full(DIMENSION, np.nan, dtype=np.float32).tobytes()
    bad = person("BAD", delta.version).model_copy(
        update={"templates": [WireTemplate(template_id="t0", space=SPACE, vector=nan)]}
    )
    synced.receive(channels.SYNC_DELTA, delta.model_copy(update={"upserts": [bad, *delta.upserts]}))
    assert "GOOD" in synced.user_ids
    assert "BAD" not in synced.user_ids
    error = synced.applied[-1].error
    assert error is not None
    assert error.code == "vector-invalid"
    assert base64.b64encode(nan).decode() not in json.dumps(error.detail)


def test_an_error_page_is_reported_and_requested_again_later(device: Device, registry: ModelRegistry) -> None:
    """The status has the code, and the next answer clears it."""
    device.connect()
    refusal = registry.answer(device.requests[-1]).model_copy(
        update={"error": WireError(code="device-unknown", detail="register it first"), "upserts": []}
    )
    device.receive(channels.SYNC_PAGE, refusal)
    assert len(device.requests) == 1
    error = device.sync.get_sync_status().error
    assert error is not None
    assert error.code == "device-unknown"
    device.clock.advance(10.0)
    device.tick()
    device.sync_with(registry)
    device.assert_equals(registry)
    assert device.sync.get_sync_status().error is None


def test_another_site_starts_a_snapshot_sync(synced: Device) -> None:
    """The old gallery is used until the new site's gallery is complete."""
    other = ModelRegistry("aa")
    for n in range(9):
        other.enroll(f"OTHER-{n}", n + 500)
    moved = Device(synced.db.connection.path, site="gate")
    assert moved.user_ids == synced.user_ids
    moved.connect_and_wait()
    assert (moved.requests[0].since_version, moved.requests[0].site_id) == (0, "gate")
    moved.sync_with(other)
    moved.assert_equals(other)


def test_sync_now_while_disconnected_does_not_stall_the_next_connection(device: Device) -> None:
    """The request is dropped without a connection, and connecting sends a new one."""
    device.link.up = False
    device.sync.sync_now()
    device.tick()
    assert not device.sync.get_sync_status().in_progress
    device.link.up = True
    device.connect()
    assert len(device.requests) == 1


_NAMES = [f"P{n}" for n in range(5)]
_STEP = st.one_of(
    st.tuples(st.just("enroll"), st.sampled_from(_NAMES), st.integers(0, 40)),
    st.tuples(st.just("enroll"), st.sampled_from(_NAMES), st.integers(0, 40)),
    st.tuples(st.just("delete"), st.sampled_from(_NAMES)),
    st.tuples(st.just("deliver"), st.integers(0, 3)),
    st.tuples(st.just("deliver"), st.integers(0, 3)),
    st.tuples(st.just("purge")),
    st.tuples(st.just("restore"), st.integers(0, 10)),
    st.tuples(st.just("deliver"), st.integers(0, 30)),
    st.tuples(st.just("head")),
    st.tuples(st.just("answer"), st.integers(0, 10), st.integers(1, 3)),
    st.tuples(st.just("release"), st.integers(0, 10)),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 30.0])),
)


class RandomHistory:
    """Plays steps in which messages are lost, repeated, delayed and reordered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = ModelRegistry("e0")
        self.device = Device(path)
        self.deltas: list[Any] = []
        self.pages: list[SyncPage] = []
        self.epochs = 0
        for name in _NAMES[:3]:
            self._enroll(name, 77)
        self.device.connect()
        self.device.sync_with(self.registry)

    def play(self, step: tuple[Any, ...]) -> None:
        getattr(self, f"_{step[0]}")(*step[1:])

    def _enroll(self, name: str, seed: int) -> None:
        self.deltas.append(self.registry.enroll(name, seed, seed + 1))

    def _delete(self, name: str) -> None:
        self.deltas.append(self.registry.delete(name))

    def _purge(self) -> None:
        self.registry.purge()

    def _restore(self, back: int) -> None:
        self.epochs += 1
        self.registry.restore(f"e{self.epochs}", max(0, self.registry.version - back))

    def _deliver(self, index: int) -> None:
        if self.deltas:
            self.device.receive(channels.SYNC_DELTA, self.deltas[-1 - index % len(self.deltas)])

    def _head(self) -> None:
        self.device.receive(channels.SYNC_HEAD, self.registry.head())

    def _answer(self, index: int, limit: int) -> None:
        if self.device.requests:
            request = self.device.requests[-1 - index % len(self.device.requests)]
            self.pages += answer_with_pages(self.registry, request, limit)

    def _release(self, index: int) -> None:
        if self.pages:
            self.device.receive(channels.SYNC_PAGE, self.pages[-1 - index % len(self.pages)])

    def _reconnect(self) -> None:
        self.device.connect()

    def _restart(self) -> None:
        self.device.db.close()
        self.device = Device(self.path, clock=self.device.clock)
        self.device.connect()

    def _wait(self, seconds: float) -> None:
        self.device.clock.advance(seconds)
        self.device.tick()


@settings(
    max_examples=4 * settings.default.max_examples,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(_STEP, min_size=5, max_size=60))
def test_loss_repetition_and_reordering_are_harmless(
    tmp_path_factory: pytest.TempPathFactory, steps: list
) -> None:
    """After any history the device equals the registry.

    A head and answered requests follow the history.
    """
    history = RandomHistory(tmp_path_factory.mktemp("history") / "device.db")
    for step in steps:
        before = history.device.sync.get_sync_status()
        history.play(step)
        after = history.device.sync.get_sync_status()
        # Within an epoch the version of the gallery never decreases.
        assert after.epoch != before.epoch or after.version >= before.version
        # A repair of drift would hide the wrong decision that caused it.
        assert "drift" not in history.device.sync.get_sync_status().counts
    history._reconnect()
    history._head()
    history.device.sync_with(history.registry, limit=3, rounds=80)
    history._head()
    history.device.sync_with(history.registry, limit=3)
    history.device.assert_equals(history.registry)
    assert "drift" not in history.device.sync.get_sync_status().counts
    history.device.db.close()


def test_a_device_that_moved_to_another_site_was_never_synced(synced: Device) -> None:
    """The old gallery is the old site's: `synced_at` is None until the first sync."""
    assert synced.sync.synced_at is not None
    moved = Device(synced.db.connection.path, site="roof", clock=synced.clock)
    assert moved.sync.synced_at is None
    again = Device(synced.db.connection.path, clock=synced.clock)
    assert again.sync.synced_at == synced.sync.synced_at
