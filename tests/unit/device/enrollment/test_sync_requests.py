"""A requested sync ends when everything up to the request is applied."""

from pathlib import Path

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, Decoded
from device.enrollment.sync_manager import SyncManager
from device.store.db_manager import DatabaseManager
from tests.device_samples import DIMENSION, SPACE, Clock, ModelRegistry, ScriptedLink, seeded


class Camera:
    """A sync manager beside a registry; the test decides when an answer arrives."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.link = ScriptedLink()
        self.registry = ModelRegistry()
        db = DatabaseManager(path, utc_now=self.clock.utc_now)
        db.initialize()
        self.sync = SyncManager(
            db,
            self.link,
            device_id="cam-001",
            site_id="lobby",
            spaces={SPACE: DIMENSION},
            source=seeded(),
            clock=self.clock,
            utc_now=self.clock.utc_now,
        )

    def connect(self) -> None:
        self.sync.connected(self.clock())
        self.tick()

    def tick(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.sync.tick(self.clock())

    def receive(self, channel: Channel, message: object) -> None:
        self.sync.receive_message(Decoded(channel, {}, message))

    def answer(self, limit: int | None = None) -> None:
        """Send the registry's current answer to the newest request."""
        request = self.link.of(channels.SYNC_REQUEST)[-1]
        self.receive(channels.SYNC_PAGE, self.registry.answer(request, limit))
        self.tick()


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    camera = Camera(tmp_path / "device.db")
    camera.registry.enroll("EMP-1", 1)
    camera.connect()
    camera.answer()
    return camera


def test_a_requested_sync_ends_with_the_last_page(camera: Camera) -> None:
    """It is not done after the first page."""
    camera.registry.enroll("EMP-2", 2)
    camera.registry.enroll("EMP-3", 3)
    applied = camera.sync.request_sync()
    camera.tick()
    camera.answer(limit=1)
    assert not applied.done()
    camera.answer(limit=1)
    assert applied.done()
    assert camera.sync.get_sync_status().version == 3


def test_an_answer_to_an_earlier_request_does_not_count(camera: Camera) -> None:
    """The answer may be older than the request."""
    camera.sync.sync_now()
    camera.tick()
    page = camera.registry.answer(camera.link.of(channels.SYNC_REQUEST)[-1])
    camera.registry.enroll("EMP-2", 2)
    applied = camera.sync.request_sync(100)
    camera.receive(channels.SYNC_PAGE, page)
    camera.tick()
    assert not applied.done()
    camera.answer()
    assert applied.done()
    assert camera.sync.get_sync_status().version == 2


def test_a_head_without_changes_does_not_resolve_a_waiter(camera: Camera) -> None:
    """A request is sent, but none for a cancelled waiter."""
    camera.sync.disconnected()
    camera.connect()
    waiting = camera.sync.request_sync()
    camera.receive(channels.SYNC_HEAD, camera.registry.head())
    camera.tick()
    camera.answer()
    assert waiting.done()

    requests = len(camera.link.of(channels.SYNC_REQUEST))
    camera.sync.request_sync().cancel()
    camera.receive(channels.SYNC_HEAD, camera.registry.head())
    camera.tick(1.0)
    assert len(camera.link.of(channels.SYNC_REQUEST)) == requests


def test_a_requested_sync_survives_a_lost_connection(camera: Camera) -> None:
    """The next connection sends a request."""
    applied = camera.sync.request_sync()
    camera.tick()
    camera.sync.disconnected()
    camera.connect()
    camera.tick(2.0)
    assert not applied.done()
    camera.answer()
    assert applied.done()


def test_since_version_0_fetches_all_identities(camera: Camera) -> None:
    """The sync is done when the whole snapshot is applied."""
    applied = camera.sync.request_sync(0)
    camera.tick()
    assert camera.link.of(channels.SYNC_REQUEST)[-1].since_version == 0
    camera.answer()
    assert applied.done()
    assert camera.sync.get_sync_status().counts["resets"] == 2


@pytest.mark.parametrize("sign", ["head", "delta"])
def test_an_unanswered_request_is_repeated_when_the_bridge_works_again(camera: Camera, sign: str) -> None:
    """Its pause has grown to minutes; a deletion must not wait for that."""
    camera.sync.request_sync()
    camera.tick()
    while (due := camera.sync.tick(camera.clock())) - camera.clock() < 60:
        camera.tick(due - camera.clock())
    repeated = len(camera.link.of(channels.SYNC_REQUEST))
    camera.tick(20.0)
    assert len(camera.link.of(channels.SYNC_REQUEST)) == repeated
    delta = camera.registry.enroll("EMP-2", 2)
    if sign == "head":
        camera.receive(channels.SYNC_HEAD, camera.registry.head())
    else:
        camera.receive(channels.SYNC_DELTA, delta)
    camera.tick(0.5)
    assert len(camera.link.of(channels.SYNC_REQUEST)) == repeated + 1
    camera.answer()
    assert camera.sync.get_sync_status().version == 2


def test_a_request_that_was_just_sent_is_not_repeated_by_deltas(camera: Camera) -> None:
    """A flood of deltas causes one request in five seconds at most."""
    camera.sync.request_sync()
    camera.tick()
    sent = len(camera.link.of(channels.SYNC_REQUEST))
    for number in range(40):
        camera.receive(channels.SYNC_DELTA, camera.registry.enroll(f"EMP-{number + 10}", number))
        camera.tick(0.1)
    assert len(camera.link.of(channels.SYNC_REQUEST)) == sent
