"""Define the settings sections `tracking` and `search` of bridge and API."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from broker_bridge.common.settings import Section
from broker_bridge.contract.spaces import SpaceLimits


class TrackingSettings(Section):
    """Settings of the tracker. Durations are seconds unless named otherwise."""

    person_timeout: Annotated[float, Field(ge=0.01, le=86_400)] = 30.0
    """A person not seen for so long is inactive; a later match is a new appearance."""
    db_sync_interval: Annotated[float, Field(ge=0.01, le=3600)] = 5.0
    """Interval of writes; a crash loses at most this much of the statistics, and no id."""
    face_similarity_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Replaces `tracked_similarity` of every face space (seed 004); None leaves each space its own."""
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

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, document: Any) -> Any:
        if isinstance(document, dict) and "faces" in document:
            raise ValueError(
                "faces: limits are now those of a space: set tracked_similarity, tracked_margin and "
                "tracked_by_position in registry.limits"
            )
        return document

    def tracked_limits(self, space: str, limits: SpaceLimits) -> SpaceLimits:
        """Return the limits that the tracker uses in a space with `limits`."""
        similarity = self.face_similarity_threshold
        if similarity is None or not space.startswith("face:"):
            return limits
        by_position = min(limits.tracked_by_position, similarity)
        return limits.model_copy(
            update={"tracked_similarity": similarity, "tracked_by_position": by_position}
        )


class SearchSettings(Section):
    """The search engine: this program's memory or MongoDB's $vectorSearch."""

    engine: Literal["memory", "mongodb"] = "memory"
    index: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "person_faces"
    """Prefix of the names of the search indexes, where `engine` is mongodb."""
