"""Hold the quality-weighted mean of a detected person's sure faces in one space.

The mean of unit vectors is no unit vector: the more the faces differ, the smaller its length, the centroid
norm. So the product of a face with the mean is the mean cosine between that face and all faces of the mean.
Faces are compared by this mean cosine: a look-alike comes no nearer to many faces than to one.
"""

from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import Vector

# Beyond this weight older faces fade: a mean over years would not follow a beard.
_MAX_WEIGHT = 50.0
_MIN_WEIGHT = 0.05
_UNKNOWN_QUALITY = 0.5


@dataclass
class FaceCentroid:
    """A mean float32[d] and its `weight`, the sum of the qualities of its faces."""

    space: str
    mean: Vector
    weight: float

    @classmethod
    def from_vector(cls, space: str, vector: Vector, quality: float | None) -> "FaceCentroid":
        """Return the centroid of one face, a unit vector float32[d]."""
        return cls(space, vector.astype(np.float32), _weight(quality))

    @classmethod
    def restored(cls, space: str, unit: Vector, centroid_norm: float, weight: float) -> "FaceCentroid":
        return cls(space, (unit * np.float32(centroid_norm)).astype(np.float32), weight)

    def learn(self, vector: Vector, quality: float | None) -> None:
        """Move the mean towards one more face."""
        more = _weight(quality)
        self.weight = min(self.weight, _MAX_WEIGHT - more) + more
        self.mean += (vector - self.mean) * np.float32(more / self.weight)

    @property
    def centroid_norm(self) -> float:
        """The length of the mean, 0..1: how well the faces agree."""
        return min(1.0, float(np.linalg.norm(self.mean)))

    @property
    def unit(self) -> Vector:
        """float32[d] of unit length."""
        unit: Vector = self.mean / np.float32(np.linalg.norm(self.mean))
        return unit

    def similarity(self, vector: Vector) -> float:
        """Return the mean cosine between `vector` and the faces of the mean."""
        return float(np.vecdot(self.mean, vector))

    def has_moved(self, since: "FaceCentroid") -> bool:
        """Return whether the distance from `since` is past 0.05, which is worth a write."""
        return float(np.linalg.norm(self.mean - since.mean)) > 0.05

    def copy(self) -> "FaceCentroid":
        return FaceCentroid(self.space, self.mean.copy(), self.weight)


def _weight(quality: float | None) -> float:
    return max(_MIN_WEIGHT, _UNKNOWN_QUALITY if quality is None else quality)
