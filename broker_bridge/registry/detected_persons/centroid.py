"""How a detected person is known in one space: the quality-weighted mean of faces that were surely theirs.

The mean of unit vectors is no unit vector: its length, the consistency, is the less the more the faces
differ. So the product of a face with the mean is the mean cosine between it and all faces of the mean,
however many. That is what a face is judged by: a look-alike comes no nearer to many faces than to one.
"""

from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import Vector

# Faces beyond this fade: a mean of years would not follow a beard.
_MOST_WEIGHT = 50.0
_LEAST_WEIGHT = 0.05
_UNKNOWN_QUALITY = 0.5


@dataclass
class FaceCentroid:
    """`mean` is float32[d]; `weight` the sum of qualities behind it."""

    space: str
    mean: Vector
    weight: float

    @classmethod
    def from_vector(cls, space: str, vector: Vector, quality: float | None) -> "FaceCentroid":
        """Known by one face: a unit vector float32[d]."""
        return cls(space, vector.astype(np.float32), _weight(quality))

    @classmethod
    def restored(cls, space: str, unit: Vector, centroid_norm: float, weight: float) -> "FaceCentroid":
        return cls(space, (unit * np.float32(centroid_norm)).astype(np.float32), weight)

    def learn(self, vector: Vector, quality: float | None) -> None:
        """Move the mean towards one more face."""
        more = _weight(quality)
        self.weight = min(self.weight, _MOST_WEIGHT - more) + more
        self.mean += (vector - self.mean) * np.float32(more / self.weight)

    @property
    def centroid_norm(self) -> float:
        """The length of the mean, 0..1."""
        return min(1.0, float(np.linalg.norm(self.mean)))

    @property
    def unit(self) -> Vector:
        """float32[d] of unit length."""
        unit: Vector = self.mean / np.float32(np.linalg.norm(self.mean))
        return unit

    def similarity(self, vector: Vector) -> float:
        """The mean cosine between `vector` and the faces of the mean."""
        return float(np.vecdot(self.mean, vector))

    def has_moved(self, since: "FaceCentroid") -> bool:
        """Whether it differs from `since` by more than matters: their distance is past 0.05."""
        return float(np.linalg.norm(self.mean - since.mean)) > 0.05

    def copy(self) -> "FaceCentroid":
        return FaceCentroid(self.space, self.mean.copy(), self.weight)


def _weight(quality: float | None) -> float:
    return max(_LEAST_WEIGHT, _UNKNOWN_QUALITY if quality is None else quality)
