"""Define the settings sections `tracking` and `search` of bridge and API."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.ids import SpaceId
from broker_bridge.registry.space_defaults import GENERAL, defaults_for

Similarity = Annotated[float, Field(gt=0, lt=1)]


class FaceLimits(Section):
    """Mean cosine similarities that decide whether a face belongs to a known person."""

    similarity: Similarity = GENERAL.tracked_similarity
    """A face of this similarity belongs to the person (seed 004)."""
    margin: Annotated[float, Field(ge=0, lt=1)] = GENERAL.tracked_margin
    """A face this far above `similarity`, and above the second person, moves the centroid."""
    by_position: Similarity = GENERAL.tracked_by_position
    """Enough for the person that was in this place of the same picture a moment ago."""

    @model_validator(mode="after")
    def _in_order(self) -> "FaceLimits":
        if self.by_position > self.similarity:
            raise ValueError("by_position is larger than similarity: set it to similarity or less")
        return self

    @property
    def floor(self) -> float:
        """The similarity down to which a search must be exact, for the second-nearest too."""
        return self.similarity - self.margin


class TrackingSettings(Section):
    """Settings of the tracker. Durations are seconds unless named otherwise."""

    person_timeout: Annotated[float, Field(ge=0.01, le=86_400)] = 30.0
    """A person not seen for so long is inactive; a later match is a new appearance."""
    db_sync_interval: Annotated[float, Field(ge=0.01, le=3600)] = 5.0
    """Interval of writes; a crash loses at most this much of the statistics, and no id."""
    face_similarity_threshold: Similarity = GENERAL.tracked_similarity
    """FaceLimits.similarity of the spaces that `faces` does not name."""
    faces: dict[SpaceId, FaceLimits] = Field(default_factory=dict)
    position_seconds: Annotated[float, Field(ge=0, le=10)] = 2.0
    """How long a position in a picture supports a match."""
    position_overlap: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Least intersection over union of two boxes in the same place."""
    learn_quality: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Faces of a lower quality are matched, and move no centroid."""
    clock_tolerance: Annotated[float, Field(ge=0.01, le=604_800)] = 300.0
    """How far a camera's clock may be off; other observations are rejected."""
    lease_seconds: Annotated[float, Field(ge=1, le=4)] = 3.0
    """One bridge tracks; another takes over so long after its death."""
    retention_days: Annotated[float, Field(gt=0, le=20_000)] = 7.0
    """Persons not seen for so long, and older visit segments, are deleted."""

    def limits_in(self, space: str) -> FaceLimits:
        """Return the limits of a space.

        The space's own entry in `faces` comes first, then the configured general threshold, then the
        defaults of the space.
        """
        if space in self.faces:
            return self.faces[space]
        defaults = defaults_for(space)
        similarity = defaults.tracked_similarity
        if "face_similarity_threshold" in self.model_fields_set:
            similarity = self.face_similarity_threshold
        return FaceLimits(
            similarity=similarity,
            margin=defaults.tracked_margin,
            by_position=min(defaults.tracked_by_position, similarity),
        )


class SearchSettings(Section):
    """The search engine: this program's memory or MongoDB's $vectorSearch."""

    engine: Literal["memory", "mongodb"] = "memory"
    index: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "person_faces"
    """Prefix of the names of the search indexes, where `engine` is mongodb."""
