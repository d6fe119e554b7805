"""The scale model reproduces what was measured, and names the walls."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmarks.scale_model.__main__ import main
from benchmarks.scale_model.demand import cameras_at_wall, demands, first_wall, homes_needed
from benchmarks.scale_model.deployment import Deployment, Habits
from benchmarks.scale_model.simulation import Simulation
from benchmarks.scale_model.unit_costs import MEASURED, Cost

ONLY_EVENTS = Habits(images=0, heartbeats=0, observations=0, syncs=0, changes=0)
THEN = replace(
    MEASURED,
    event=Cost(37, 68, 59, 325, 325),
    event_batch=Cost(357, 5273, 3540),
    receipt=Cost(58, 85, 7, 75, 75),
)
"""The costs in the run in which the points were measured; a faster bridge has other points."""


@dataclass(frozen=True)
class MeasuredPoint:
    """What `benchmarks.scale_model.measuring` printed: milliseconds until a receipt."""

    rate: int
    cameras: int
    p50: float
    p99: float


# Two cores with some other work, on 2026-12-01; cameras, broker, bridge and mongod share them.
POINTS = (
    MeasuredPoint(300, 1, 13.2, 24.9),
    MeasuredPoint(1000, 100, 17.9, 52.0),
    MeasuredPoint(3000, 2, 25.8, 116.9),
    MeasuredPoint(3000, 100, 47.5, 120.3),
)
SATURATION = 6015


def on_two_cores(rate: float, cameras: int) -> Deployment:
    """Return the machine of the measurements; others take some of its time."""
    return Deployment(
        cameras,
        1,
        workers=1,
        mongod_cores=2,
        machine_cores=2,
        slowdown=1.1,
        player_us=100,
        receive_maximum=2000,
        habits=replace(ONLY_EVENTS, events=rate / cameras),
        costs=THEN,
    )


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point.rate}-of-{point.cameras}")
def test_simulated_receipts_take_as_long_as_measured_ones(point: MeasuredPoint) -> None:
    """The median is within 40 %, the 99th percentile within a factor of 4."""
    outcome = Simulation(on_two_cores(point.rate, point.cameras), np.random.default_rng(1)).run(4)
    assert outcome.receipts == pytest.approx(point.rate, rel=0.1)
    assert outcome.latency is not None
    assert outcome.latency.p50 == pytest.approx(point.p50, rel=0.4)
    assert point.p99 / 4 < outcome.latency.p99 < point.p99 * 1.3


def test_the_simulated_bridge_is_full_where_the_measured_one_is() -> None:
    """Offered more than it records, it gives as many receipts, within 25 %."""
    outcome = Simulation(on_two_cores(7000, 100), np.random.default_rng(1)).run(6)
    assert outcome.receipts == pytest.approx(SATURATION, rel=0.25)
    assert outcome.backlog > 1000


def test_one_busy_camera_gets_as_many_receipts_as_in_decision_47() -> None:
    """One camera on two cores reaches the measured 10,000 a second within 20 %."""
    deployment = replace(on_two_cores(13_000, 1), slowdown=1.0, player_us=20, receive_maximum=4000)
    outcome = Simulation(deployment, np.random.default_rng(1)).run(4)
    assert outcome.receipts == pytest.approx(10_000, rel=0.2)


def test_an_idle_deployment_answers_within_the_work_of_one_batch() -> None:
    """On cores of its own a lone event waits for its own steps and the journal."""
    costs = THEN
    deployment = Deployment(10, 1, habits=replace(ONLY_EVENTS, events=0.1), costs=costs)
    outcome = Simulation(deployment, np.random.default_rng(1)).run(60)
    alone = sum(
        cost.broker + cost.bridge + cost.mongod for cost in (costs.event, costs.event_batch, costs.receipt)
    )
    assert outcome.latency is not None
    assert outcome.latency.p50 == pytest.approx(alone / 1000 + costs.flush_ms, rel=0.1)


def test_demand_grows_with_the_cameras_until_a_part_is_full() -> None:
    """With `cameras_at_wall` cameras the first part is full and no other is."""
    wall = cameras_at_wall(Deployment(1000, 50))
    full = Deployment(wall, wall // 20)
    assert first_wall(full).share == pytest.approx(1.0, rel=0.01)
    assert first_wall(full).part == first_wall(Deployment(1000, 50)).part
    assert all(demand.share <= 1.001 for demand in demands(full))


def test_homes_keep_every_part_below_its_limit() -> None:
    """A million cameras in as many homes as they need fill no part past 60 %."""
    deployment = Deployment(1_000_000, 50_000)
    homes = homes_needed(deployment)
    assert first_wall(deployment.split(homes)).share <= 0.6
    assert first_wall(deployment.split(homes // 2)).share > 0.6


def test_changes_for_everywhere_move_the_wall_to_the_fan_out() -> None:
    """A change that all cameras receive costs the leader their confirmations."""
    deployment = Deployment(100_000, 5_000)
    everywhere = replace(deployment, habits=replace(deployment.habits, changes_everywhere=True))
    leader = {demand.part: demand.share for demand in demands(everywhere)}["bridge leader"]
    assert leader > 10 * {demand.part: demand.share for demand in demands(deployment)}["bridge leader"]


@pytest.mark.parametrize(
    ("cameras", "wall"), [(1_000, "will be full"), (100_000, "is full"), (1_000_000, "is full")]
)
def test_the_command_shows_the_first_wall(
    cameras: int, wall: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints each part, and how many cameras fill the first."""
    assert main(["--cameras", str(cameras), "--seconds", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert "event numbering" in printed
    assert f"first wall: {first_wall(Deployment(cameras, cameras // 20)).part}, full to" in printed
    assert f"it {wall} at" in printed
