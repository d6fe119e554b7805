"""Settings of cross-camera tracking that bridge and API share: sections `tracking` and `search`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.ids import SpaceId
from broker_bridge.registry.space_defaults import GENERAL, defaults_for

Similarity = Annotated[float, Field(gt=0, lt=1)]


class FaceLimits(Section):
    """Mean cosine similarities by which a face is told to be somebody's who was seen before."""

    similarity: Similarity = GENERAL.tracked_similarity
    """At least this like the faces that a person is known by, on average: that person (seed 004)."""
    margin: Annotated[float, Field(ge=0, lt=1)] = GENERAL.tracked_margin
    """Whoever is nearer than anybody else, and than is asked for, by this is known better by the face."""
    by_position: Similarity = GENERAL.tracked_by_position
    """Enough for the person who was in the same place of the same picture a moment ago."""

    @model_validator(mode="after")
    def _in_order(self) -> "FaceLimits":
        if self.by_position > self.similarity:
            raise ValueError("by_position is at most similarity")
        return self

    @property
    def floor(self) -> float:
        """The similarity down to which candidates must be found exactly, the second-nearest too."""
        return self.similarity - self.margin


class TrackingSettings(Section):
    """Who is followed across cameras, and for how long. Durations in seconds unless named otherwise."""

    person_timeout: Annotated[float, Field(gt=0)] = 30.0
    """Not seen for so long: inactive. They are still matched; then it is a new appearance."""
    db_sync_interval: Annotated[float, Field(gt=0)] = 5.0
    """How often what was seen is written; a crash costs at most this much of statistics, and no id."""
    face_similarity_threshold: Similarity = GENERAL.tracked_similarity
    """See FaceLimits.similarity; this is for the spaces that `faces` does not name."""
    faces: dict[SpaceId, FaceLimits] = Field(default_factory=dict)
    position_seconds: Annotated[float, Field(ge=0, le=10)] = 2.0
    """How long a place in a picture tells who is there."""
    position_overlap: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Intersection over union of two boxes that may be one person's."""
    learn_quality: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Faces of a lower quality are matched, and nobody is known better by them."""
    clock_tolerance: Annotated[float, Field(gt=0)] = 300.0
    """How far a camera's clock may be off: observations of another time are refused."""
    lease_seconds: Annotated[float, Field(ge=1, le=4)] = 3.0
    """One bridge tracks; when it dies another takes over after so long."""
    retention_days: Annotated[float, Field(gt=0)] = 7.0
    """Whoever was not seen for so long is forgotten, and so are stretches of trails that ended before."""

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
    """Where faces of detected persons are searched: in the program's memory or by MongoDB's $vectorSearch."""

    engine: Literal["memory", "mongodb"] = "memory"
    index: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "person_faces"
    """Name of the vector search index, where `engine` is mongodb."""
