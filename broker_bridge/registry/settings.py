"""Define the settings that bridge and API share: section `registry`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.ids import SpaceId

from .identities.rules import Rules
from .space_defaults import GENERAL, defaults_for

Similarity = Annotated[float, Field(ge=0, le=1)]


class SimilarityLimits(Section):
    """Cosine similarities that decide whether a new face belongs to a known identity."""

    same_person: Similarity = GENERAL.same_person
    """At least this similar is the same person; 0.65 is the cosine distance 0.35 of devices."""
    look_alike: Similarity = GENERAL.look_alike
    """From this to `same_person` the match is uncertain: devices register no new identity, and an enrollment
    gets a warning."""
    margin: Similarity = GENERAL.margin
    """Least lead in similarity of the best match over the second; with less the match is uncertain."""

    @property
    def floor(self) -> float:
        """The similarity down to which the best and second match must be found exactly."""
        return max(0.0, min(self.look_alike, self.same_person - self.margin))

    @model_validator(mode="after")
    def _in_order(self) -> "SimilarityLimits":
        if self.look_alike > self.same_person:
            raise ValueError("look_alike must be at most same_person")
        return self


class RegistrySettings(Section):
    """Rules for identities; bridge and API must have the same."""

    templates_per_space: Annotated[int, Field(ge=1, le=64)] = 5
    """Most templates of an identity in one space; the most different good ones are kept."""
    consent: Literal["assumed", "required"] = "assumed"
    """Whether devices may receive a modality without recorded consent. With `required` they register no
    visitors."""
    look_alikes: Literal["warn", "refuse", "ignore"] = "warn"
    """Treatment of an enrollment whose face is more similar than `look_alike` to another identity."""
    same_person_similarity: Similarity = GENERAL.same_person
    look_alike_similarity: Similarity = GENERAL.look_alike
    """The limits of spaces that `similarities` does not name; see SimilarityLimits."""
    similarities: dict[SpaceId, SimilarityLimits] = Field(default_factory=dict)
    tombstone_retention_days: Annotated[float, Field(gt=0, le=20_000)] = 30
    """Days that a deleted identity can be restored and devices can sync its removal."""

    @model_validator(mode="after")
    def _similarities_in_order(self) -> "RegistrySettings":
        if self.look_alike_similarity > self.same_person_similarity:
            raise ValueError("look_alike_similarity must be at most same_person_similarity")
        return self

    def similarities_in(self, space: str) -> SimilarityLimits:
        """Return the limits of a space.

        The space's own entry in `similarities` comes first, then the configured general limits, then the
        defaults of the space.
        """
        if space in self.similarities:
            return self.similarities[space]
        defaults = defaults_for(space)
        same_person, look_alike = defaults.same_person, defaults.look_alike
        if "same_person_similarity" in self.model_fields_set:
            same_person = self.same_person_similarity
        if "look_alike_similarity" in self.model_fields_set:
            look_alike = self.look_alike_similarity
        # One configured limit may cross the default of the other.
        return SimilarityLimits(
            same_person=same_person, look_alike=min(look_alike, same_person), margin=defaults.margin
        )

    @property
    def rules(self) -> Rules:
        return Rules(self.templates_per_space, self.consent == "assumed")
