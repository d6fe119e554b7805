"""Define the record of an embedding space.

It names the model, how faces are prepared for it, and the limits of decisions.

A record lies as JSON beside a model file (`arcface.onnx` has `arcface.json`), in the registry, and in the
heads that cameras receive. Configured limits come before the registry's, these before the file's.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .embeddings import MAX_DIMENSION, EmbeddingSpace
from .ids import SpaceId
from .wire import Sha256, ShortText, WireModel, WireTime

DetectorName = Literal["cascade", "scrfd", "yunet"]
Alignment = Literal["landmarks", "box"]
"""Onto ArcFace's five points, or the corrected square of the detector's box."""
Dimension = Annotated[int, Field(ge=1, le=MAX_DIMENSION)]
Distance = Annotated[float, Field(ge=0, le=2)]
Similarity = Annotated[float, Field(ge=0, le=1)]


class SpaceLimits(WireModel):
    """The limits of decisions in one space, as cosines; a distance is 1 - cosine.

    They belong together: a model of another space has others.
    """

    distance: Distance
    """A camera takes the nearest identity within this distance for a match (seed 003)."""
    margin: Similarity
    """The least lead in similarity of the best identity over the second."""
    same_person: Similarity
    """At least this similar is the same person at an enrollment or a registration."""
    look_alike: Similarity
    """From this to `same_person` the answer is uncertain: an enrollment gets a warning."""
    tracked_similarity: Similarity
    """A face of this mean similarity belongs to a detected person (seed 004)."""
    tracked_margin: Similarity
    """A face this far above `tracked_similarity`, and above the second person, moves the centroid."""
    tracked_by_position: Similarity
    """Enough for the person that was in this place of the same picture a moment ago."""

    @property
    def enrollment_floor(self) -> float:
        """The similarity down to which the two nearest identities count."""
        return max(0.0, min(self.look_alike, self.same_person - self.margin))

    @property
    def tracking_floor(self) -> float:
        """The similarity down to which the two nearest detected persons count."""
        return self.tracked_similarity - self.tracked_margin

    @model_validator(mode="after")
    def _in_order(self) -> "SpaceLimits":
        if self.look_alike > self.same_person:
            raise ValueError("look_alike must be at most same_person")
        if self.tracked_by_position > self.tracked_similarity:
            raise ValueError("tracked_by_position must be at most tracked_similarity")
        return self


class LimitsSource(WireModel):
    """Where the limits of a space come from.

    `shipped` lie beside the model, `calibrated` were measured on `pairs` pairs of photographs at `at`,
    `configured` stand in a program's configuration.
    """

    kind: Literal["shipped", "calibrated", "configured"]
    at: WireTime | None = None
    pairs: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    note: ShortText | None = None


class SpaceRecord(WireModel):
    """What every program knows of a space.

    Without `model_sha256` no model file belongs to the space yet; without `limits` nothing is matched in it.
    `detector` and `alignment` are those of enrollment and cameras alike, None for spaces of other modalities.
    """

    space: SpaceId
    dimension: Dimension
    model_sha256: Sha256 | None = None
    detector: DetectorName | None = None
    alignment: Alignment | None = None
    limits: SpaceLimits | None = None
    source: LimitsSource | None = None

    @property
    def embedding_space(self) -> EmbeddingSpace:
        """The space as vectors know it."""
        return EmbeddingSpace(self.space, self.dimension, self.model_sha256)
