"""Draw made-up face embeddings that lie as far apart as ArcFace puts real ones."""

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import Vector

from .course import LOOK_ALIKE_COSINE, OWN_COSINE, Course

# The largest difference between the quality that a camera reports and the true quality of the face.
_QUALITY_NOISE = 0.1
_MIN_QUALITY = 0.2


class SimulatedFaces:
    """Hold one centroid per walker and draw pictures around it.

    Two pictures of one walker have a cosine of 0.6 to 0.8.
    """

    def __init__(self, course: Course, random: np.random.Generator) -> None:
        self._random = random
        self.centroids = draw_unit_vectors((course.walkers, course.dimension), random)
        pairs = course.look_alike_pairs
        # The cosine of two pictures is on average 0.7 of the cosine of their centroids.
        cosine = LOOK_ALIKE_COSINE / (sum(OWN_COSINE) / 2)
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        self.centroids[second] = draw_at_cosine(self.centroids[first], np.full(pairs, cosine), random)

    def sample(self, walker: int) -> tuple[Vector, float]:
        """Return a picture's vector (float32[d], unit length) and its quality (0..1).

        The quality rises with the cosine to the walker's centroid.
        """
        shared = self._random.uniform(*OWN_COSINE)
        vector = draw_at_cosine(self.centroids[walker : walker + 1], np.sqrt([shared]), self._random)[0]
        worst, best = OWN_COSINE
        quality = _MIN_QUALITY + (1 - _MIN_QUALITY) * (shared - worst) / (best - worst)
        noise = self._random.uniform(-_QUALITY_NOISE, _QUALITY_NOISE)
        return vector, float(np.clip(quality + noise, 0.0, 1.0))


def draw_unit_vectors(shape: tuple[int, ...], random: np.random.Generator) -> Vector:
    """Return float32[n, d]: vectors of unit length in random directions."""
    return to_unit_rows(random.standard_normal(shape, dtype=np.float32))


def draw_at_cosine(base: Vector, cosine: float | NDArray[np.float64], random: np.random.Generator) -> Vector:
    """Return float32[n, d]: vectors at `cosine` (one or n) to the rows of `base`.

    Their directions are random otherwise.
    """
    return to_cosine(base, cosine, random.standard_normal(base.shape, dtype=np.float32))


def to_cosine(base: Vector, cosine: float | NDArray[np.float64], noise: NDArray[np.floating]) -> Vector:
    """Return float32[n, d]: the rows of `base`, turned towards `noise` to `cosine`."""
    aside = noise - np.einsum("nd,nd->n", noise, base)[:, np.newaxis] * base
    share = np.broadcast_to(np.asarray(cosine, np.float32), len(base))[:, np.newaxis]
    return to_unit_rows(share * base + np.sqrt(1 - share**2) * to_unit_rows(aside))


def to_unit_rows(vectors: NDArray[np.floating]) -> Vector:
    """Return float32[n, d]: the rows of `vectors` scaled to unit length."""
    unit: Vector = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
