"""Settings of cross-camera tracking that bridge and API share: sections `tracking` and `search`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.ids import SpaceId

Similarity = Annotated[float, Field(gt=0, lt=1)]


class FaceLimits(Section):
    """Mean cosine similarities by which a face is told to be somebody's who was seen before."""

    similarity: Similarity = 0.6
    """At least this like the faces that a person is known by, on average: that person (seed 004)."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Whoever is nearer than anybody else, and than is asked for, by this is known better by the face."""
    by_position: Similarity = 0.45
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


# Strangers come nearer to each other there: 0.58 on average and up to 0.73 among a hundred.
_TRIAL_SPACES = {"face:gabor-512": FaceLimits(similarity=0.75, margin=0.05, by_position=0.7)}


class TrackingSettings(Section):
    """Who is followed across cameras, and for how long. Durations in seconds unless named otherwise."""

    person_timeout: Annotated[float, Field(gt=0)] = 30.0
    """Not seen for so long: inactive. They are still matched; then it is a new appearance."""
    db_sync_interval: Annotated[float, Field(gt=0)] = 5.0
    """How often what was seen is written; a crash costs at most this much of statistics, and no id."""
    face_similarity_threshold: Similarity = 0.6
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
        """What holds in a space: its own, else what suits the trial space, else the general ones."""
        threshold = self.face_similarity_threshold
        general = FaceLimits(similarity=threshold, by_position=min(0.45, threshold))
        return self.faces.get(space) or _TRIAL_SPACES.get(space) or general


class SearchSettings(Section):
    """Where faces of detected persons are searched: in the program's memory or by MongoDB's $vectorSearch."""

    engine: Literal["memory", "mongodb"] = "memory"
    index: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "person_faces"
    """Name of the vector search index, where `engine` is mongodb."""
