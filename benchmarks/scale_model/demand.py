"""Compare what each part has to do a second with what it can do."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .deployment import Deployment
from .unit_costs import Cost

COMFORTABLE = 0.6
"""A part that is busier than this answers late at every peak."""


@dataclass(frozen=True)
class Demand:
    """Work of one part a second, and its capacity, both in `unit`."""

    part: str
    needed: float
    capacity: float
    unit: str = "cores"

    @property
    def share(self) -> float:
        return self.needed / self.capacity


def demands(deployment: Deployment) -> list[Demand]:
    """Return every part's demand in a busy hour, with batches of full size.

    Past some hundred cameras hardly two events of a batch come from one camera: a receipt message an event.
    """
    costs, rates = deployment.costs, deployment.rates
    events, beats, changes = rates["event"], rates["heartbeat"], rates["change"]
    ingest = [
        (events, deployment.event),
        (events, costs.receipt),
        (events / deployment.batch, costs.event_batch),
    ]
    pages = [(rates["synced_identity"], costs.synced_identity)]
    presence = [(beats, costs.heartbeat), (beats / deployment.batch_events, costs.heartbeat_batch)]
    fan_out = [(changes, costs.change), (changes * deployment.listeners, costs.change_camera)]
    observed = [(rates["observation"], costs.observation)]
    everything = [*ingest, *pages, *presence, *fan_out, *observed]
    commit = (costs.event_batch.mongod + deployment.batch * deployment.event.mongod) / 1e6
    return [
        Demand("broker", _total(everything, _broker), deployment.brokers),
        Demand("bridge workers", _total([*ingest, *pages], _bridge), deployment.workers),
        Demand("bridge leader", _total([*presence, *fan_out], _bridge), 1),
        Demand("trackers", _total(observed, _bridge), deployment.trackers),
        Demand("MongoDB primary", _total(everything, lambda cost: cost.mongod), deployment.mongod_cores),
        Demand(
            "event numbering",
            events / deployment.batch * (commit + costs.flush_ms / 1e3),
            1,
            "commits in a row",
        ),
        Demand("disk", _total(everything, lambda cost: cost.journal), deployment.disk_mb, "MB/s"),
        Demand("network", _total(everything, _bytes), deployment.network_mb, "MB/s"),
    ]


def first_wall(deployment: Deployment) -> Demand:
    """Return the part that is full first as cameras are added."""
    return max(demands(deployment), key=lambda demand: demand.share)


def cameras_at_wall(deployment: Deployment) -> int:
    """Return the number of cameras, at sites of the same size, that fills a part."""
    per_site = deployment.cameras / deployment.sites
    least, most = 1, 1
    while first_wall(_resized(deployment, most, per_site)).share < 1:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        if first_wall(_resized(deployment, middle, per_site)).share < 1:
            least = middle
        else:
            most = middle
    return most


def _resized(deployment: Deployment, cameras: int, per_site: float) -> Deployment:
    return replace(deployment, cameras=cameras, sites=max(1, round(cameras / per_site)))


def homes_needed(deployment: Deployment) -> int:
    """Return how many deployments must share the sites, each comfortably busy."""
    homes = max(1, math.ceil(first_wall(deployment).share / COMFORTABLE))
    while first_wall(deployment.split(homes)).share > COMFORTABLE and homes < deployment.sites:
        homes += 1
    return homes


def reconnect_seconds(deployment: Deployment) -> float:
    """Return how long the leader works if all cameras connect anew at once."""
    return deployment.cameras * deployment.costs.connect.bridge / 1e6


def _total(counts: list[tuple[float, Cost]], of: Callable[[Cost], float]) -> float:
    return sum(count * of(cost) for count, cost in counts) / 1e6


def _broker(cost: Cost) -> float:
    return cost.broker


def _bridge(cost: Cost) -> float:
    return cost.bridge


def _bytes(cost: Cost) -> float:
    return cost.bytes_in + cost.bytes_out
