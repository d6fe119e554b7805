"""The sync manager against a scripted link and a model registry, on a real SQLite file."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
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
    """A sync manager with its file, its link and the rows that recognition would use."""

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
            scheduler=BackgroundScheduler(),
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
        """Until the jitter of a fleet that connects together is over."""
        self.connect()
        self.clock.advance(0.5)
        self.tick()

    def tick(self) -> None:
        self.sync.tick(self.clock())

    def tell(self, channel: Channel[Any], message: Any) -> None:
        self.sync.receive_message(Decoded(channel, {}, message))
        self.tick()

    @property
    def requests(self) -> list[SyncRequest]:
        return self.link.of(channels.SYNC_REQUEST)

    @property
    def applied(self) -> list[SyncApplied]:
        return self.link.of(channels.SYNC_APPLIED)

    def sync_with(self, registry: ModelRegistry, limit: int | None = None, rounds: int = 50) -> None:
        """Answer requests until the device asks no more."""
        answered = len(self.requests) - 1 if self.sync.get_sync_status().in_progress else len(self.requests)
        for _ in range(rounds):
            if answered == len(self.requests):
                self.clock.advance(1.0)
                self.tick()
            if answered == len(self.requests):
                return
            answered = len(self.requests)
            self.tell(channels.SYNC_PAGE, registry.answer(self.requests[-1], limit))
        raise AssertionError(f"the device still asks after {rounds} rounds")

    @property
    def people(self) -> list[str]:
        assert self.rows is not None
        return sorted(set(self.rows.user_ids))

    def assert_equals(self, registry: ModelRegistry) -> None:
        """On disk, in memory and by digest."""
        cursor = self.db.cursor()
        assert cursor is not None
        assert (cursor.epoch, cursor.version) == (registry.epoch, registry.version)
        expected = registry.digest()
        assert self.db.digests().get(SPACE, type(expected)()) == expected
        assert self.db.verify()
        assert self.rows is not None
        held = sorted(
            (user, row.tobytes()) for user, row in zip(self.rows.user_ids, self.rows.vectors, strict=True)
        )
        wanted = sorted((one.user_id, t.vector) for one in registry.people.values() for t in one.templates)
        assert held == wanted
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
    """At once, one page at a time, each from where the last one ended; then it says what it holds."""
    device.connect()
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)
    assert [one.since_version for one in device.requests] == [0, 3, 7]
    assert [one.reset_head_version for one in device.requests] == [None, 8, 8]
    assert len(device.applied) == 1
    assert device.applied[0].version == 8
    assert device.applied[0].spaces[SPACE].digest == registry.digest().hex
    assert device.applied[0].spaces[SPACE].count == 12


def test_a_live_delta_is_in_the_gallery_at_once_and_confirmed(
    synced: Device, registry: ModelRegistry
) -> None:
    """Without any request: this is what makes a deletion work in under a second."""
    requests_before = len(synced.requests)
    synced.tell(channels.SYNC_DELTA, registry.enroll("NEW", 50))
    synced.tell(channels.SYNC_DELTA, registry.delete("EMP-1"))
    synced.assert_equals(registry)
    assert "EMP-1" not in synced.people
    assert [one.version for one in synced.applied[-2:]] == [9, 10]
    assert len(synced.requests) == requests_before


def test_a_repeated_delta_changes_nothing(synced: Device, registry: ModelRegistry) -> None:
    """Nor does an old one that comes late."""
    first, second = registry.enroll("NEW", 50), registry.delete("NEW")
    for delta in (first, second, second, first):
        synced.tell(channels.SYNC_DELTA, delta)
    synced.assert_equals(registry)


def test_a_gap_is_asked_for_within_half_a_second(synced: Device, registry: ModelRegistry) -> None:
    """One delta got lost; the next one shows it."""
    requests_before = len(synced.requests)
    registry.enroll("LOST", 50)
    synced.tell(channels.SYNC_DELTA, registry.enroll("NEW", 51))
    synced.clock.advance(0.5)
    synced.tick()
    assert [one.since_version for one in synced.requests[requests_before:]] == [8]
    synced.sync_with(registry)
    synced.assert_equals(registry)


def test_a_head_that_the_following_delta_fulfils_costs_no_request(
    synced: Device, registry: ModelRegistry
) -> None:
    """Head and delta may come in either order."""
    requests_before = len(synced.requests)
    delta = registry.enroll("NEW", 50)
    synced.sync.receive_message(Decoded(channels.SYNC_HEAD, {}, registry.head()))
    synced.tell(channels.SYNC_DELTA, delta)
    synced.clock.advance(5.0)
    synced.tick()
    assert len(synced.requests) == requests_before


def test_a_reconnected_device_asks_only_if_the_head_has_moved(
    synced: Device, registry: ModelRegistry
) -> None:
    """A fleet that comes back together and is up to date asks nothing."""
    requests_before = len(synced.requests)
    synced.connect()
    synced.tell(channels.SYNC_HEAD, registry.head())
    synced.clock.advance(60.0)
    synced.tick()
    assert len(synced.requests) == requests_before
    assert synced.applied[-1].version == registry.version

    registry.delete("EMP-0")
    synced.connect()
    synced.tell(channels.SYNC_HEAD, registry.head())
    synced.clock.advance(0.5)
    synced.tick()
    assert len(synced.requests) == requests_before + 1
    synced.sync_with(registry)
    synced.assert_equals(registry)


def test_after_a_long_absence_the_registry_itself_is_asked(synced: Device, registry: ModelRegistry) -> None:
    """A retained head may be as old as the absence; and a gallery that is too old waits for this answer."""
    requests_before = len(synced.requests)
    synced.sync.disconnected()
    synced.clock.advance(3600.0)
    synced.connect()
    synced.tell(channels.SYNC_HEAD, registry.head())
    synced.sync_with(registry)
    assert len(synced.requests) == requests_before + 1
    assert synced.sync.synced_at is not None
    assert (synced.clock.utc_now() - synced.sync.synced_at).total_seconds() < 5


def test_a_fleet_that_starts_together_asks_spread_over_half_a_second(synced: Device) -> None:
    """A camera with a gallery waits its jitter; an empty one requests at once."""
    again = Device(synced.db.connection.path, clock=synced.clock)
    again.connect()
    assert again.requests == []
    again.clock.advance(0.5)
    again.tick()
    assert len(again.requests) == 1


def test_without_a_head_a_reconnected_device_asks_by_itself(synced: Device) -> None:
    """The broker may have lost its retained messages."""
    requests_before = len(synced.requests)
    synced.connect()
    assert len(synced.requests) == requests_before
    synced.clock.advance(1.0)
    synced.tick()
    assert len(synced.requests) == requests_before + 1


def test_an_unanswered_request_is_repeated_under_its_own_id(device: Device, registry: ModelRegistry) -> None:
    """So that the late answer to either copy counts, and only one of them."""
    device.connect()
    device.clock.advance(10.0)
    device.tick()
    first, second = device.requests
    assert first == second
    answer = registry.answer(first)
    device.tell(channels.SYNC_PAGE, answer)
    device.tell(channels.SYNC_PAGE, answer)
    device.assert_equals(registry)
    assert device.sync.get_sync_status().counts["pages_ignored"] == 1


def test_another_epoch_replaces_the_gallery_at_its_end_only(synced: Device, registry: ModelRegistry) -> None:
    """A restored backup: the old people are recognised until the new snapshot is complete."""
    old = synced.people
    registry.restore("bb", 4)
    registry.enroll("AFTER", 60)
    synced.tell(channels.SYNC_HEAD, registry.head())
    synced.clock.advance(0.5)
    synced.tick()
    synced.tell(channels.SYNC_PAGE, registry.answer(synced.requests[-1], 2))
    assert synced.people == old
    synced.sync_with(registry, limit=2)
    synced.assert_equals(registry)
    assert "AFTER" in synced.people


def test_a_device_below_the_horizon_gets_a_snapshot(synced: Device, registry: ModelRegistry) -> None:
    """The tombstone that it missed is purged; what the snapshot does not name goes away."""
    registry.delete("EMP-2")
    registry.purge()
    registry.enroll("NEW", 70)
    synced.tell(channels.SYNC_HEAD, registry.head())
    synced.sync_with(registry, limit=2)
    synced.assert_equals(registry)
    assert synced.sync.get_sync_status().counts["resets"] == 2


def test_a_reset_goes_on_after_a_restart(tmp_path: Path, registry: ModelRegistry) -> None:
    """From the page that was committed last."""
    device = Device(tmp_path / "device.db")
    device.connect()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    device.db.close()

    again = Device(tmp_path / "device.db")
    again.connect()
    assert (again.requests[0].since_version, again.requests[0].reset_head_version) == (3, 8)
    again.sync_with(registry, limit=3)
    again.assert_equals(registry)


def test_the_next_page_is_asked_for_before_this_one_is_written(
    device: Device, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the bridge reads while the device writes: but never more than one page ahead."""
    asked_before_write = []
    take_in = device.db.begin_snapshot

    def begin_snapshot(*page: Any) -> None:
        asked_before_write.append([one.since_version for one in device.requests])
        take_in(*page)

    monkeypatch.setattr(device.db, "begin_snapshot", begin_snapshot)
    device.connect()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    assert asked_before_write == [[0, 3]]
    assert len(device.requests) == 2


def test_a_first_sync_is_in_nobodys_gallery_until_it_is_complete(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    """Not in recognition, not for firmware, not after a restart: to half a gallery the rest are strangers."""
    device = Device(tmp_path / "device.db")
    for last in (False, True):
        device.connect()
        device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
        assert device.people == []
        assert device.sync.synced_at is None
        assert device.sync.position() is None
        assert device.db.get_all_enrollments() == {}
        if not last:
            device.db.close()
            device = Device(tmp_path / "device.db")
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)


def test_whoever_changes_during_a_first_sync_is_as_they_came_last(
    device: Device, registry: ModelRegistry
) -> None:
    """Deleted, enrolled again and other faces: a delta is not applied to half a gallery, later pages are."""
    device.connect()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    device.tell(channels.SYNC_DELTA, registry.delete("EMP-0"))
    device.tell(channels.SYNC_DELTA, registry.enroll("EMP-1", 90, 91, 92))
    assert device.people == []
    device.sync_with(registry, limit=3)
    device.assert_equals(registry)
    content = b"".join(file.read_bytes() for file in device.db.connection.path.parent.iterdir())
    assert vector(0) not in content
    assert vector(1) not in content


@pytest.mark.parametrize("how", ["epoch", "site"])
def test_a_first_sync_that_cannot_go_on_leaves_nothing_of_its_people(
    tmp_path: Path, registry: ModelRegistry, how: str
) -> None:
    """The registry has begun another history, or the camera was given to another site meanwhile."""
    device = Device(tmp_path / "device.db")
    device.connect()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    device.db.close()
    other = ModelRegistry("bb")
    other.enroll("OTHER", 500)
    again = Device(tmp_path / "device.db", site="gate" if how == "site" else "lobby")
    again.connect()
    again.sync_with(other)
    again.assert_equals(other)
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert vector(0) not in content


def test_a_page_that_cannot_be_written_is_asked_for_again(
    device: Device, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the request ahead is dropped, and the sync continues from the stored cursor."""
    device.connect()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
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


def test_a_long_sync_tells_how_far_it_has_come(device: Device, registry: ModelRegistry) -> None:
    """For the heartbeat: during a reset with the people staged, during a catch-up, and not otherwise."""
    assert device.sync.progress() is None
    device.connect()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    assert device.sync.progress() == SyncProgress(version=3, head_version=8, people=3)
    device.sync_with(registry)
    assert device.sync.progress() is None

    for n in range(4):
        registry.enroll(f"NEW-{n}", 60 + n)
    device.sync.sync_now()
    device.tick()
    device.tell(channels.SYNC_PAGE, registry.answer(device.requests[-1], 3))
    assert device.sync.progress() == SyncProgress(version=11, head_version=12)
    device.sync_with(registry)
    assert device.sync.progress() is None


def test_names_reach_a_device_in_dev_mode_live(tmp_path: Path, registry: ModelRegistry) -> None:
    """Deltas carry no names, so such a device takes one as a call to ask; a removal it applies at once."""
    device = Device(tmp_path / "device.db", dev_mode=True)
    device.connect()
    device.sync_with(registry)

    def names() -> dict[str, str | None]:
        with device.db.connection.reading() as sql:
            return dict(sql.execute("SELECT user_id, display_name FROM enrolled_users"))

    for name in ("First Name", "Second Name"):
        delta = registry.enroll("NEW", 50)
        device.tell(channels.SYNC_DELTA, delta)
        registry.people["NEW"] = registry.people["NEW"].model_copy(update={"display_name": name})
        device.clock.advance(0.5)
        device.tick()
        device.sync_with(registry)
        assert names()["NEW"] == name
    requests_before = len(device.requests)
    device.tell(channels.SYNC_DELTA, registry.delete("NEW"))
    assert "NEW" not in device.people
    assert len(device.requests) == requests_before
    device.assert_equals(registry)


def test_a_delta_during_a_reset_is_never_undone_by_its_end(synced: Device, registry: ModelRegistry) -> None:
    """The swap waits until the snapshot has come past what the live gallery already holds."""
    synced.sync.request_sync(0)
    synced.tick()
    stale = registry.answer(synced.requests[-1])
    synced.tell(channels.SYNC_DELTA, registry.delete("EMP-0"))
    assert "EMP-0" not in synced.people
    synced.tell(channels.SYNC_PAGE, stale)
    assert "EMP-0" not in synced.people
    synced.sync_with(registry)
    synced.assert_equals(registry)


def test_a_registry_that_went_back_within_its_epoch_is_followed(
    synced: Device, registry: ModelRegistry
) -> None:
    """It should not happen; if it does, the registry is right and the device does not ask in a circle."""
    registry.restore(registry.epoch, 4)
    synced.sync.request_sync(0)
    synced.tick()
    synced.sync_with(registry, rounds=4)
    synced.assert_equals(registry)


def test_drift_is_mended_by_a_full_resync_without_being_told(synced: Device, registry: ModelRegistry) -> None:
    """Equal version, other templates: counted, fetched from zero, and then equal."""
    synced.db.apply_delta([], ["EMP-2"], synced.db.cursor())  # type: ignore[arg-type]
    again = Device(synced.db.connection.path, clock=synced.clock)
    again.connect_and_wait()
    again.tell(channels.SYNC_PAGE, registry.answer(again.requests[-1]))
    again.tell(channels.SYNC_HEAD, registry.head())
    again.clock.advance(0.5)
    again.tick()
    assert again.requests[-1].since_version == 0
    again.sync_with(registry)
    again.assert_equals(registry)
    assert again.sync.get_sync_status().counts["drift"] == 1


def test_a_flipped_bit_on_the_disk_is_found_at_the_start_and_mended(
    synced: Device, registry: ModelRegistry
) -> None:
    """A vector that is no vector any more is not compared with faces meanwhile."""
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


def test_drift_that_stays_does_not_make_the_device_ask_in_a_circle(
    synced: Device, registry: ModelRegistry
) -> None:
    """At most one full resync a minute, then ever rarer."""
    wrong = registry.head().model_copy(update={"spaces": {}})
    for _ in range(50):
        synced.tell(channels.SYNC_HEAD, wrong)
        synced.sync_with(registry)
    assert synced.clock() < 1000.0 + 110
    assert 2 <= synced.sync.get_sync_status().counts["resets"] <= 3


def test_a_bad_template_is_left_out_named_and_its_neighbours_apply(
    synced: Device, registry: ModelRegistry
) -> None:
    """SyncApplied carries the code; no vector in it."""
    delta = registry.enroll("GOOD", 50)
    nan = np.full(DIMENSION, np.nan, dtype=np.float32).tobytes()
    bad = person("BAD", delta.version).model_copy(
        update={"templates": [WireTemplate(template_id="t0", space=SPACE, vector=nan)]}
    )
    synced.tell(channels.SYNC_DELTA, delta.model_copy(update={"upserts": [bad, *delta.upserts]}))
    assert "GOOD" in synced.people
    assert "BAD" not in synced.people
    error = synced.applied[-1].error
    assert error is not None
    assert error.code == "vector-invalid"
    assert base64.b64encode(nan).decode() not in json.dumps(error.detail)


def test_an_error_page_is_kept_as_the_state_and_asked_again_later(
    device: Device, registry: ModelRegistry
) -> None:
    """The status has the code; the next answer clears it."""
    device.connect()
    refusal = registry.answer(device.requests[-1]).model_copy(
        update={"error": WireError(code="device-unknown", detail="register it first"), "upserts": []}
    )
    device.tell(channels.SYNC_PAGE, refusal)
    assert len(device.requests) == 1
    error = device.sync.get_sync_status().error
    assert error is not None
    assert error.code == "device-unknown"
    device.clock.advance(10.0)
    device.tick()
    device.sync_with(registry)
    device.assert_equals(registry)
    assert device.sync.get_sync_status().error is None


def test_another_site_starts_from_zero(synced: Device) -> None:
    """The cursor belongs to its site; the new site's gallery replaces the old one when it is complete."""
    other = ModelRegistry("aa")
    for n in range(9):
        other.enroll(f"OTHER-{n}", n + 500)
    moved = Device(synced.db.connection.path, site="gate")
    assert moved.people == synced.people
    moved.connect_and_wait()
    assert (moved.requests[0].since_version, moved.requests[0].site_id) == (0, "gate")
    moved.sync_with(other)
    moved.assert_equals(other)


def test_sync_now_while_disconnected_does_not_stall_the_next_connection(device: Device) -> None:
    """A request that could not be sent is forgotten; connecting asks."""
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


class Chaos:
    """Plays steps: messages are lost, repeated, held back and delivered in any order."""

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
            self.device.tell(channels.SYNC_DELTA, self.deltas[-1 - index % len(self.deltas)])

    def _head(self) -> None:
        self.device.tell(channels.SYNC_HEAD, self.registry.head())

    def _answer(self, index: int, limit: int) -> None:
        if self.device.requests:
            request = self.device.requests[-1 - index % len(self.device.requests)]
            self.pages.append(self.registry.answer(request, limit))

    def _release(self, index: int) -> None:
        if self.pages:
            self.device.tell(channels.SYNC_PAGE, self.pages[-1 - index % len(self.pages)])

    def _reconnect(self) -> None:
        self.device.connect()

    def _restart(self) -> None:
        self.device.db.close()
        self.device = Device(self.path, clock=self.device.clock)
        self.device.connect()

    def _wait(self, seconds: float) -> None:
        self.device.clock.advance(seconds)
        self.device.tick()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_STEP, min_size=5, max_size=60))
def test_loss_repetition_and_reordering_are_harmless(
    tmp_path_factory: pytest.TempPathFactory, steps: list
) -> None:
    """After any history, a head and answered requests make the device equal to the registry."""
    chaos = Chaos(tmp_path_factory.mktemp("chaos") / "device.db")
    for step in steps:
        before = chaos.device.sync.get_sync_status()
        chaos.play(step)
        after = chaos.device.sync.get_sync_status()
        # Within an epoch the gallery never goes back, not even for a moment.
        assert after.epoch != before.epoch or after.version >= before.version
        # Drift heals by itself, and would hide a wrong decision that made it.
        assert "drift" not in chaos.device.sync.get_sync_status().counts
    chaos._reconnect()
    chaos._head()
    chaos.device.sync_with(chaos.registry, limit=3, rounds=80)
    chaos._head()
    chaos.device.sync_with(chaos.registry, limit=3)
    chaos.device.assert_equals(chaos.registry)
    assert "drift" not in chaos.device.sync.get_sync_status().counts
    chaos.device.db.close()


def test_a_device_that_moved_to_another_site_was_never_synced(synced: Device) -> None:
    """The old gallery belongs to the old site: `synced_at` is empty until the first sync."""
    assert synced.sync.synced_at is not None
    moved = Device(synced.db.connection.path, site="roof", clock=synced.clock)
    assert moved.sync.synced_at is None
    again = Device(synced.db.connection.path, clock=synced.clock)
    assert again.sync.synced_at == synced.sync.synced_at
