"""Define the settings that bridge and API share: section `registry`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.spaces import Distance, LimitsSource, Similarity, SpaceLimits

from .identities.rules import Rules

_MOVED = ("same_person_similarity", "look_alike_similarity", "similarities")
# The first of a pair is at most the second; the one that is not configured follows the other.
_ORDERED = (("look_alike", "same_person"), ("tracked_by_position", "tracked_similarity"))


class ConfiguredLimits(Section):
    """Limits of a space, all or some, over those on record; see SpaceLimits."""

    distance: Distance | None = None
    margin: Similarity | None = None
    same_person: Similarity | None = None
    look_alike: Similarity | None = None
    tracked_similarity: Similarity | None = None
    tracked_margin: Similarity | None = None
    tracked_by_position: Similarity | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "ConfiguredLimits":
        for lower, upper in _ORDERED:
            low, high = getattr(self, lower), getattr(self, upper)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{lower} must be at most {upper}")
        return self

    def over(self, recorded: SpaceLimits | None) -> SpaceLimits | None:
        """Return these limits, completed by the recorded ones; None if some are missing.

        One configured limit may cross a recorded one of its pair, which then equals it.
        """
        own = self.model_dump(exclude_none=True)
        limits = {**(recorded.model_dump() if recorded else {}), **own}
        if limits.keys() != SpaceLimits.model_fields.keys():
            return None
        for lower, upper in _ORDERED:
            if limits[lower] > limits[upper]:
                follower, leader = (lower, upper) if upper in own else (upper, lower)
                limits[follower] = limits[leader]
        return SpaceLimits.model_validate(limits)


CONFIGURED = LimitsSource(kind="configured", note="registry.limits")


class RegistrySettings(Section):
    """Rules for identities; bridge and API must have the same."""

    templates_per_space: Annotated[int, Field(ge=1, le=64)] = 5
    """Most templates of an identity in one space; the most different good ones are kept."""
    consent: Literal["assumed", "required"] = "assumed"
    """Whether devices may receive a modality without recorded consent. With `required` they register no
    visitors."""
    look_alikes: Literal["warn", "refuse", "ignore"] = "warn"
    """Treatment of an enrollment whose face is more similar than `look_alike` to another identity."""
    limits: dict[SpaceId, ConfiguredLimits] = Field(default_factory=dict)
    """Limits of spaces, over those on record; without either nothing is matched in a space."""
    tombstone_retention_days: Annotated[float, Field(gt=0, le=20_000)] = 30
    """Days that a deleted identity can be restored and devices can sync its removal."""

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, document: Any) -> Any:
        moved = [name for name in _MOVED if isinstance(document, dict) and name in document]
        if moved:
            raise ValueError(
                f"{', '.join(moved)}: now in registry.limits, by space, such as "
                '{"face:example": {"same_person": 0.65, "look_alike": 0.5, "margin": 0.05}}'
            )
        return document

    @property
    def rules(self) -> Rules:
        return Rules(self.templates_per_space, self.consent == "assumed")
