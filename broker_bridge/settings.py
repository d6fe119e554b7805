"""The settings of the bridge."""

from typing import Annotated

from pydantic import Field, model_validator

from .contract.ids import SpaceId
from .contract.settings import LogSettings, MqttSettings, Section, Settings
from .registry.mongo import MongoSettings

Similarity = Annotated[float, Field(ge=0, le=1)]


class Similarities(Section):
    """Cosine similarities by which a face that a camera registers is told from the faces that are known."""

    same_person: Similarity = 0.65
    """At least this near it is that person: a cosine distance of 0.35, as devices recognise people by."""
    look_alike: Similarity = 0.5
    """Between this and `same_person` nobody can tell, so that no new person is made either."""
    margin: Similarity = 0.05
    """The person it is must be nearer than anybody else by this; else nobody can tell which of them it is."""

    @property
    def floor(self) -> float:
        """The similarity down to which people must be found exactly, the second-nearest too."""
        return max(0.0, min(self.look_alike, self.same_person - self.margin))

    @model_validator(mode="after")
    def _in_order(self) -> "Similarities":
        if self.look_alike > self.same_person:
            raise ValueError("look_alike is at most same_person")
        return self


# Strangers come nearer to each other there: 0.58 on average and up to 0.73 among a hundred.
_TRIAL_SPACES = {"face:gabor-512": Similarities(same_person=0.75, look_alike=0.7)}


class BridgeSettings(Section):
    """How a bridge worker behaves. Durations in seconds, sizes in bytes."""

    auto_register: bool = False
    """Accept devices that nobody has registered; meant for the local stack."""
    batch_events: Annotated[int, Field(ge=1, le=10_000)] = 1000
    batch_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024
    queue_events: Annotated[int, Field(ge=1)] = 10_000
    queue_bytes: Annotated[int, Field(ge=1)] = 128 * 1024 * 1024
    event_max_age_days: Annotated[float, Field(gt=0)] = 366
    """An event older than this, or a day ahead of the backend, comes from a wrong clock."""
    image_retention_days: Annotated[int, Field(ge=1)] = 30
    dead_letter_retention_days: Annotated[int, Field(ge=1)] = 30
    poll_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How often the publisher looks for changes by itself, should the change stream be silent."""
    lease_seconds: Annotated[float, Field(gt=0.5)] = 5.0
    default_spaces: dict[SpaceId, Annotated[int, Field(ge=1, le=4096)]] = Field(
        default_factory=lambda: {"face:gabor-512": 512}
    )
    """Embedding spaces that exist from the start, with their dimension; devices declare further ones."""
    same_person_similarity: Similarity = 0.65
    look_alike_similarity: Similarity = 0.5
    """See Similarities; these are for the spaces that `similarities` does not name."""
    similarities: dict[SpaceId, Similarities] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _similarities_in_order(self) -> "BridgeSettings":
        if self.look_alike_similarity > self.same_person_similarity:
            raise ValueError("look_alike_similarity is at most same_person_similarity")
        return self

    def similarities_in(self, space: str) -> Similarities:
        """What holds in a space: its own, else what suits the trial space, else the general ones."""
        general = Similarities(same_person=self.same_person_similarity, look_alike=self.look_alike_similarity)
        return self.similarities.get(space) or _TRIAL_SPACES.get(space) or general


class BridgeProgram(Settings):
    """Every section that `python -m broker_bridge` reads."""

    mqtt: MqttSettings = MqttSettings()
    mongo: MongoSettings = MongoSettings()
    bridge: BridgeSettings = BridgeSettings()
    log: LogSettings = LogSettings()
