"""What one event, heartbeat, observation, change, sync and connect costs.

Measured by `python -m benchmarks.scale_model.measuring`; docs/scale.md has the sources.
"""

from dataclasses import dataclass

EVENT_BRIDGE_US = 68.0
"""CPU of the bridge for one event within a large batch: the one place of this number."""
RECEIPT_BRIDGE_US = 85.0
"""CPU of the bridge for one receipt message."""
OBSERVATION_BRIDGE_US = 417.0
"""CPU of the bridge for one observation, at 1,000 a second."""


@dataclass(frozen=True)
class Cost:
    """One unit of work.

    CPU in microseconds, bytes in and out of the broker, documents and bytes of journal that MongoDB writes.
    """

    broker: float = 0.0
    bridge: float = 0.0
    mongod: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    writes: float = 0.0
    journal: float = 0.0


@dataclass(frozen=True)
class UnitCosts:
    """The costs of all kinds of traffic.

    `image` comes on top of an event. `event_batch` and `heartbeat_batch` come once a batch; a `receipt` is
    one message to one camera, with its events of one batch. `change` comes once a change, `change_camera`
    once for each camera that receives it. `synced_identity` is one identity of a first sync. `flush_ms` is
    the wait for the journal's disk.
    """

    event: Cost = Cost(37, EVENT_BRIDGE_US, 59, 325, 325, 1.0, 60)
    image: Cost = Cost(58, 680, 817, 66_680, 66_680, 1.0, 50_500)
    event_batch: Cost = Cost(357, 5273, 3540, writes=1.0, journal=850)
    receipt: Cost = Cost(58, RECEIPT_BRIDGE_US, 7, 75, 75)
    heartbeat: Cost = Cost(72, 295, 717, 758, 758, 2.0, 1170)
    heartbeat_batch: Cost = Cost(bridge=7240, mongod=5270)
    observation: Cost = Cost(128, OBSERVATION_BRIDGE_US, 114, 3040, 3040, 0.2, 106)
    change: Cost = Cost(1060, 27_500, 29_200, 3600, 4000, 5.0, 4700)
    change_camera: Cost = Cost(94, 179, 650, 160, 3610, 2.0, 590)
    synced_identity: Cost = Cost(7, 130, 21, 2934, 2934)
    connect: Cost = Cost(600, 11_700, 10_500, 1555, 621, 7.0, 2340)
    flush_ms: float = 1.5


MEASURED = UnitCosts()
