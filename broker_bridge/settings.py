"""The settings of the bridge."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from .common.settings import LogSettings, MqttSettings, Section, Settings
from .contract.ids import SpaceId
from .registry.detected_persons.settings import SearchSettings, TrackingSettings
from .registry.events.admission import MAX_AGE_DAYS
from .registry.mongo.client import MongoSettings
from .registry.settings import RegistrySettings


class BridgeSettings(Section):
    """How a bridge worker behaves. Durations in seconds, sizes in bytes."""

    auto_register: bool = False
    """Accept unregistered devices; meant for the local stack."""
    batch_events: Annotated[int, Field(ge=1, le=10_000)] = 1000
    batch_bytes: Annotated[int, Field(ge=1, le=1024**3)] = 4 * 1024 * 1024
    """A transaction of 16 MiB of images takes mongod twice as long an image as one of 4."""
    queue_events: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    queue_bytes: Annotated[int, Field(ge=1, le=1024**4)] = 128 * 1024 * 1024
    event_max_age_days: Annotated[float, Field(ge=0.0001, le=20_000)] = MAX_AGE_DAYS
    """An event older than this, or a day ahead of the backend, comes from a wrong clock."""
    image_retention_days: Annotated[int, Field(ge=1, le=20_000)] = 30
    dead_letter_retention_days: Annotated[int, Field(ge=1, le=20_000)] = 30
    poll_seconds: Annotated[float, Field(ge=0.01, le=3600)] = 2.0
    """How often the publisher looks for changes by itself, should the change stream be silent."""
    lease_seconds: Annotated[float, Field(gt=0.5, le=3600)] = 5.0
    default_spaces: dict[SpaceId, Annotated[int, Field(ge=1, le=4096)]] = Field(default_factory=dict)
    """Embedding spaces that exist from the start besides the built-in one, with their dimension; devices
    declare further ones."""

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, document: dict[str, Any]) -> dict[str, Any]:
        moved = document.keys() & {"same_person_similarity", "look_alike_similarity", "similarities"}
        if moved:
            raise ValueError(f"{', '.join(sorted(moved))}: now in registry.limits, for bridge and API alike")
        return document


class BridgeProgram(Settings):
    """Every section that `python -m broker_bridge` reads."""

    mqtt: MqttSettings = MqttSettings()
    mongo: MongoSettings = MongoSettings()
    registry: RegistrySettings = RegistrySettings()
    tracking: TrackingSettings = TrackingSettings()
    search: SearchSettings = SearchSettings()
    bridge: BridgeSettings = BridgeSettings()
    log: LogSettings = LogSettings()
