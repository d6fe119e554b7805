"""Embeddings of people who do not exist, as far from each other as ArcFace puts real ones."""

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import Vector

from .course import LOOK_ALIKE_COSINE, OWN_COSINE, Course

# How far the quality that a camera tells may be from what the face is worth.
_QUALITY_NOISE = 0.1
_LEAST_QUALITY = 0.2


class SimulatedFaces:
    """Each person's centre, and pictures of them: two of one person have a cosine of 0.6 to 0.8."""

    def __init__(self, course: Course, random: np.random.Generator) -> None:
        self._random = random
        self.centres = _unit(random.standard_normal((course.people, course.dimension), dtype=np.float32))
        pairs = course.pairs
        # Observations are at 0.7 of their centres' cosine, on average.
        cosine = LOOK_ALIKE_COSINE / (sum(OWN_COSINE) / 2)
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        self.centres[second] = _towards(self.centres[first], np.full(pairs, cosine), random)

    def look(self, person: int) -> tuple[Vector, float]:
        """A picture's vector (float32[d], unit length) and quality (0..1): the nearer to the person's centre,
        the better."""
        shared = self._random.uniform(*OWN_COSINE)
        vector = _towards(self.centres[person : person + 1], np.sqrt([shared]), self._random)[0]
        worst, best = OWN_COSINE
        worth = _LEAST_QUALITY + (1 - _LEAST_QUALITY) * (shared - worst) / (best - worst)
        noise = self._random.uniform(-_QUALITY_NOISE, _QUALITY_NOISE)
        return vector, float(np.clip(worth + noise, 0.0, 1.0))


def _unit(vectors: NDArray[np.floating]) -> Vector:
    unit: Vector = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _towards(base: Vector, cosine: NDArray[np.float64], random: np.random.Generator) -> Vector:
    """float32[n, d]: vectors at `cosine` (n) from the rows of `base`, in random directions."""
    noise = random.standard_normal(base.shape, dtype=np.float32)
    noise -= np.einsum("nd,nd->n", noise, base)[:, np.newaxis] * base
    share = cosine.astype(np.float32)[:, np.newaxis]
    return _unit(share * base + np.sqrt(1 - share**2) * _unit(noise))
