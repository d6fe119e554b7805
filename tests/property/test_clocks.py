"""A camera under any order of boots, jumps of its clock, drops and reconnects."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.store.db_manager import DatabaseManager
from device.timing.event_dating import ESTIMATE, UNVERIFIED

from .clock_world import BOOTED, HEARTBEAT_SECONDS, SYNC_MINUTES, ClockWorld

HOUR = timedelta(hours=1)
OFFSETS = [timedelta(0), HOUR, -HOUR, timedelta(seconds=30), timedelta(days=-400), timedelta(days=3650)]
# An event of a boot in which the backend answered is at worst one that was sent before the answer.
MARKS = [UNVERIFIED, ESTIMATE]
_TOLERANCE = timedelta(seconds=3)
_STEP_SECONDS = 6.0

steps = st.one_of(
    st.tuples(st.just("set"), st.sampled_from([*OFFSETS, None])),
    st.tuples(st.just("reboot"), st.sampled_from([BOOTED, None])),
    st.tuples(st.just("recognise"), st.none()),
    st.tuples(st.just("recognise"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([3.0, 40.0, 300.0])),
    st.tuples(st.just("drop"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("reachable"), st.booleans()),
    st.tuples(st.just("answers"), st.booleans()),
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "device.db"
    manager = DatabaseManager(path)
    manager.initialize()
    manager.close()
    return path


@contextmanager
def opened(empty: Path) -> Iterator[ClockWorld]:
    with TemporaryDirectory() as folder:
        world = ClockWorld(Path(folder) / "device.db", empty)
        yield world
        world.db.close()


def act(world: ClockWorld, name: str, value: object) -> None:
    if name == "set":
        world.offset = value if isinstance(value, timedelta) else BOOTED - world.now()
    elif name == "reboot":
        world.reboot(value if isinstance(value, datetime) else None)
    elif name == "wait":
        world.wait(float(str(value)))
    elif name in {"reachable", "answers"}:
        setattr(world, name, value)
        if name == "reachable" and not value:
            world.drop()
    else:
        getattr(world, name)()
    check_intervals(world)


def check_intervals(world: ClockWorld) -> None:
    """Fail if a connected program missed a heartbeat, or sent more than are due."""
    times = [at for at, _ in world.heartbeats]
    assert len(times) <= world.client.broker.counts["connections"] + world.boot_seconds() / HEARTBEAT_SECONDS
    if world.client.is_connected:
        since = max([times[-1] if times else 0.0, world.client.broker._since])
        assert world.boot_seconds() - since <= HEARTBEAT_SECONDS + _STEP_SECONDS


@settings(deadline=None)
@given(st.lists(steps, max_size=25))
def test_every_event_ends_stored_and_dated_right_or_marked(
    empty: Path, script: list[tuple[str, object]]
) -> None:
    """Nothing is lost, doubled or rejected for good; heartbeats keep their interval."""
    with opened(empty) as world:
        for name, value in script:
            act(world, name, value)
        world.reachable = world.answers = True
        world.wait(700.0)
        assert set(world.stored) == set(world.happened)
        assert world.client.outbox.depth == 0
        assert world.client.outbox.rejected_count == 0
        for event_id, stored in world.stored.items():
            off = abs(stored.timestamp - world.happened[event_id])
            allowed = MARKS[:1] if event_id in world.comparable else MARKS
            assert off <= _TOLERANCE or stored.metadata.get("dated_by") in allowed, (event_id, stored)


@pytest.mark.parametrize("jump", [*OFFSETS, None], ids=str)
def test_heartbeats_and_syncs_keep_their_intervals_over_a_jump(empty: Path, jump: timedelta | None) -> None:
    """A clock that is set forwards or backwards moves no interval."""
    with opened(empty) as world:
        world.offset = HOUR
        world.wait(100.0)
        world.offset = BOOTED - world.now() if jump is None else jump
        world.wait(3 * SYNC_MINUTES * 60)
        heartbeats = [at for at, _ in world.heartbeats]
        gaps = [later - earlier for earlier, later in itertools.pairwise(heartbeats)]
        assert max(gaps) <= HEARTBEAT_SECONDS + _STEP_SECONDS
        assert sum(gaps) / len(gaps) >= HEARTBEAT_SECONDS - 1.0
        assert 4 <= len(world.requests) <= 5
