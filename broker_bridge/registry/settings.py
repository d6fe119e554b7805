"""Settings of the registry that bridge and API share: section `registry`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.ids import SpaceId

from .identities.rules import Rules
from .space_defaults import GENERAL, defaults_for

Similarity = Annotated[float, Field(ge=0, le=1)]


class SimilarityLimits(Section):
    """Cosine similarities by which a face that comes in is told from the faces that are known."""

    same_person: Similarity = GENERAL.same_person
    """At least this near it is that person: a cosine distance of 0.35, as devices recognise people by."""
    look_alike: Similarity = GENERAL.look_alike
    """Between this and `same_person` nobody can tell, so that no new person is made at the edge, and an
    enrollment is warned of."""
    margin: Similarity = GENERAL.margin
    """The person it is must be nearer than anybody else by this; else nobody can tell which of them it is."""

    @property
    def floor(self) -> float:
        """The similarity down to which people must be found exactly, the second-nearest too."""
        return max(0.0, min(self.look_alike, self.same_person - self.margin))

    @model_validator(mode="after")
    def _in_order(self) -> "SimilarityLimits":
        if self.look_alike > self.same_person:
            raise ValueError("look_alike is at most same_person")
        return self


class RegistrySettings(Section):
    """What holds for people, whatever program writes them: bridge and API must be given the same."""

    templates_per_space: Annotated[int, Field(ge=1, le=64)] = 5
    """Templates of one person that are kept in a space: the most different good ones."""
    consent: Literal["assumed", "required"] = "assumed"
    """Whether a modality of which nobody has said anything may be sent to devices. Where it is required, they
    register no visitors."""
    look_alikes: Literal["warn", "refuse", "ignore"] = "warn"
    """What becomes of an enrollment whose face is nearer than `look_alike` to somebody else's."""
    same_person_similarity: Similarity = GENERAL.same_person
    look_alike_similarity: Similarity = GENERAL.look_alike
    """See Similarities; these are for the spaces that `similarities` does not name."""
    similarities: dict[SpaceId, SimilarityLimits] = Field(default_factory=dict)
    tombstone_retention_days: Annotated[float, Field(gt=0)] = 30
    """How long the deleted can be restored, and their removal is told to devices that were away."""

    @model_validator(mode="after")
    def _similarities_in_order(self) -> "RegistrySettings":
        if self.look_alike_similarity > self.same_person_similarity:
            raise ValueError("look_alike_similarity is at most same_person_similarity")
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
