"""What one event, heartbeat, observation, change, sync and connect costs.

Measured by `python -m benchmarks.scale_model.measuring`; docs/scale.md has the sources.
"""

from dataclasses import dataclass

EVENT_BRIDGE_US = 69.0
"""CPU of the bridge for one event within a large batch: the one place of this number."""
RECEIPT_BRIDGE_US = 103.0
"""CPU of the bridge for one receipt message."""
OBSERVATION_BRIDGE_US = 284.0
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

    event: Cost = Cost(38, EVENT_BRIDGE_US, 61, 325, 325, 1.0, 60)
    image: Cost = Cost(92, 666, 710, 66_680, 66_680, 1.0, 50_500)
    event_batch: Cost = Cost(517, 6970, 4800, writes=1.0, journal=850)
    receipt: Cost = Cost(52, RECEIPT_BRIDGE_US, 0, 75, 75)
    heartbeat: Cost = Cost(40, 270, 720, 758, 758, 2.0, 1170)
    heartbeat_batch: Cost = Cost(bridge=5500, mongod=6000)
    observation: Cost = Cost(65, OBSERVATION_BRIDGE_US, 90, 3040, 3040, 0.2, 116)
    change: Cost = Cost(830, 21_000, 22_600, 3600, 4000, 5.0, 4700)
    change_camera: Cost = Cost(67, 89, 437, 160, 3610, 2.0, 506)
    synced_identity: Cost = Cost(12, 177, 29, 2937, 2937)
    connect: Cost = Cost(600, 11_000, 10_100, 1555, 621, 7.0, 2333)
    flush_ms: float = 1.5


MEASURED = UnitCosts()
