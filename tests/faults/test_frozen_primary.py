"""A frozen primary holds nothing up once another one is elected."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from deploy.local.fleet import LocalFleet
from tests.faults.replica_set import ReplicaSet
from tests.faults.scene import DEVICES, Scene
from tests.faults.traffic import event_sender, write_identity

GO_ON_SECONDS = 13.0
"""An answer is awaited for 5 s, and the repeat takes a moment; twice that on a busy machine.

Without deadlines a write takes 15 s and an event 23 s.
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Yield the product on a replica set of three."""
    monkeypatch.setattr("deploy.local.fleet.Mongod", ReplicaSet)
    with LocalFleet(tmp_path, DEVICES, bridge={"poll_seconds": 0.5, "lease_seconds": 2}) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        yield Scene(fleet, tmp_path)


def test_writes_go_on_when_the_primary_freezes(scene: Scene) -> None:
    """A REST write and an event from before the election are stored soon after it."""
    replica_set = scene.fleet.mongod
    assert isinstance(replica_set, ReplicaSet)
    with event_sender(scene) as sender, ThreadPoolExecutor(2) as pool:
        sender.receive(1, 30)
        write_identity(scene, 30)
        stored: list[Future[float]] = []

        def begin_writes() -> None:
            stored.append(pool.submit(_end_of, partial(write_identity, scene, 60)))
            stored.append(pool.submit(_end_of, partial(sender.receive, 2, 60)))

        replica_set.freeze_primary(after=begin_writes)
        elected = time.monotonic()
        for write in stored:
            assert write.result() - elected < GO_ON_SECONDS


def _end_of(write: Callable[[], None]) -> float:
    write()
    return time.monotonic()
