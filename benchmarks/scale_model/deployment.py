"""How many cameras, what they send in a busy hour, and what serves them."""

from dataclasses import dataclass, replace

from .unit_costs import MEASURED, Cost, UnitCosts

_HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True)
class Habits:
    """What one camera sends, a second of the busy hour.

    An event each 20 s, all with an image; a person is before the camera for 5 s and is observed twice a
    second. `syncs` is the rate of first syncs, of `identities` each. `changes` are those a site; each goes
    to the cameras of its site, or to all (`changes_everywhere`).
    """

    events: float = 1 / 20
    images: float = 1.0
    heartbeats: float = 1 / _HEARTBEAT_SECONDS
    observations: float = 0.5
    syncs: float = 0.01 / 86_400
    identities: int = 1000
    changes: float = 2 / 3600
    changes_everywhere: bool = False


@dataclass(frozen=True)
class Deployment:
    """A broker, a MongoDB primary, and bridge workers with a leader and trackers.

    `brokers` are the nodes of a cluster, `trackers` the groups of sites that are tracked apart.
    `machine_cores` puts everything on one machine (None: each program has cores of its own); work takes
    `slowdown` times its CPU time there, and `player_us` an event for playing the cameras. `receive_maximum`
    bounds the events that the broker sends ahead to a worker. `network_mb` and `disk_mb` are what link and
    disk carry, in MB/s.
    """

    cameras: int
    sites: int
    brokers: int = 1
    workers: int = 4
    trackers: int = 1
    mongod_cores: int = 16
    machine_cores: int | None = None
    slowdown: float = 1.0
    player_us: float = 0.0
    batch_events: int = 1000
    batch_bytes: int = 4 * 1024 * 1024
    receive_maximum: int = 5000
    network_mb: float = 1250.0
    disk_mb: float = 500.0
    habits: Habits = Habits()
    costs: UnitCosts = MEASURED

    @property
    def listeners(self) -> int:
        """Return how many cameras receive one change."""
        return self.cameras if self.habits.changes_everywhere else max(1, self.cameras // self.sites)

    @property
    def batch(self) -> int:
        """Return how many events a full batch has; large images make it fewer."""
        return max(1, min(self.batch_events, int(self.batch_bytes / self.event.bytes_in)))

    @property
    def event(self) -> Cost:
        """Return the cost of one event with its share of images."""
        event, image, share = self.costs.event, self.costs.image, self.habits.images
        return Cost(
            event.broker + share * image.broker,
            event.bridge + share * image.bridge,
            event.mongod + share * image.mongod,
            event.bytes_in + share * image.bytes_in,
            event.bytes_out + share * image.bytes_out,
            event.writes + share * image.writes,
            event.journal + share * image.journal,
        )

    @property
    def rates(self) -> dict[str, float]:
        """Return units of each kind a second."""
        habits = self.habits
        return {
            "event": self.cameras * habits.events,
            "heartbeat": self.cameras * habits.heartbeats,
            "observation": self.cameras * habits.observations,
            "change": self.sites * habits.changes,
            "synced_identity": self.cameras * habits.syncs * habits.identities,
        }

    def split(self, homes: int) -> "Deployment":
        """Return one of `homes` deployments that share the sites."""
        return replace(self, cameras=-(-self.cameras // homes), sites=max(1, self.sites // homes))
