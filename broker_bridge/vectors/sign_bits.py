"""Encode unit vectors as sign bits around their mean, and bound their cosines.

A code has one bit per coordinate, its sign after a mean is subtracted and a random rotation applied: 64
bytes for 512 dimensions. Any mean is valid, since <q, x> = <q-m, x-m> + <q, m> + <x, m> - <m, m>. Two bounds
of the first term follow from the bits:

- Two vectors at an angle of t differ in a share t/pi of the bits on average (Charikar 2002). The rotation's
  rows are orthogonal, so the bits scatter less around that share than independent bits (Ji et al. 2012,
  "Super-Bit Locality-Sensitive Hashing"): see `search_radius`.
- Bits that are weighted by the query's coordinates scatter less again, if the projection of each vector on
  its own code is known (Gao and Long 2024, "RaBitQ"): see `SignBits.exceed`.
"""

from dataclasses import dataclass
from math import acos, pi, sin, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .rotation import Vectors, rotation_of

Codes = NDArray[np.uint64]
Floats = NDArray[np.float32]

MIN_BITS = 64
"""The signs of fewer dimensions do not estimate angles."""
UNIT_TOLERANCE = 1e-3
"""How far the length of a unit vector is from 1 at most."""

_DEVIATIONS = 5.5
# Expected within the radius at least, so that an answer below the floor is a near one too.
_MIN_CANDIDATES = 16
# The floor is lowered by what a length and the rounding of sums may add to a cosine.
_SLACK = UNIT_TOLERANCE + 1e-4
# Squared lengths below this are rounding.
_TINY = 1e-12
# A query's coordinates are weighted in four equal steps, of so many of their standard deviations (Max 1960).
_STEP, _STEPS = 0.586, 4


@dataclass(frozen=True)
class QueryCode:
    """A query's signs and coordinates around the mean.

    A row x reaches the floor if <q-m, x-m> is at least floor + `offset` + |x-m|**2 / 2.
    """

    signs: Codes
    coordinates: Floats
    square: float
    """|q-m|**2."""
    offset: float


class SignBits:
    """The encoder of vectors float32[n, d] around `mean`."""

    def __init__(self, mean: Vectors, *, rotated: bool = True) -> None:
        self.bits = max(MIN_BITS, 1 << (len(mean) - 1).bit_length())
        self.mean = mean
        self.rotated = rotated or len(mean) < self.bits
        self._rotation = rotation_of(self.bits)
        self._offset = (float(mean @ mean) - 1) / 2 - _SLACK

    @classmethod
    def for_space_of(cls, sample: Vectors) -> "SignBits":
        """Return an encoder around the mean of `sample`.

        It rotates unless the coordinates look like random directions.
        """
        mean = sample.mean(axis=0)
        centred = sample - mean
        squares = np.vecdot(centred, centred)
        # Random directions have a mean squared sum of 1, and a mean sum of fourth powers of 3 / dimension.
        offset = np.square(centred.sum(axis=1)).sum()
        powers, total = np.square(centred), squares.sum()
        fourth = len(mean) * (np.vecdot(powers, powers) / np.maximum(squares, _TINY)).sum()
        return cls(mean, rotated=not (offset < 2 * total and abs(fourth - 3 * total) < 0.5 * total))

    def _coordinates(self, centred: Vectors) -> Vectors:
        return self._rotation.rotate(centred) if self.rotated else centred

    def encode(self, vectors: Vectors) -> tuple[Codes, Floats]:
        """Return codes uint64[n, bits/64] of finite vectors, and float32[n, 2] of facts.

        These are |x-m|**2, and the same over the projection of x-m on its code.
        """
        centred = vectors - self.mean
        coordinates = self._coordinates(centred)
        squares = np.maximum(np.vecdot(centred, centred), _TINY)
        projections = np.maximum(np.abs(coordinates).sum(axis=1) / sqrt(self.bits), sqrt(_TINY))
        return _pack(coordinates > 0), np.stack([squares, squares / projections], axis=1)

    def encode_queries(self, units: Vectors) -> list[QueryCode]:
        """Return the codes of finite vectors of unit length."""
        centred = units - self.mean
        coordinates = self._coordinates(centred)
        squares = np.maximum(np.vecdot(centred, centred), _TINY)
        offsets = self._offset - np.vecdot(units, self.mean)
        return [
            QueryCode(*one)
            for one in zip(
                _pack(coordinates > 0), coordinates, squares.tolist(), offsets.tolist(), strict=True
            )
        ]

    def exceed(
        self, query: QueryCode, floor: float, codes: Codes, distances: Floats, facts: Floats
    ) -> Floats:
        """Return by how much the cosines of rows may exceed `floor`; below 0: they do not.

        `distances` are those of `codes` to the query's signs. The query's bits are weighted by the sizes of
        its coordinates, in four steps. With u = x-m and v = q-m at an angle whose cosine is c, p the cosine
        of u and its code, and k that of v and its weighted signs, the estimate of c has the variance
        ((1 - c**2) * (1/k**2 - 1) + (1/p**2 - 1) * (1/k**2 - c**2)) / (bits - 1) over all rotations.
        """
        norm, sizes = sqrt(query.square), np.abs(query.coordinates)
        steps = sizes * np.float32(sqrt(self.bits) / (_STEP * norm))
        levels = np.minimum(steps, _STEPS - 1).astype(np.uint8)
        weights = levels + np.float32(0.5)
        along = max(float(np.vecdot(sizes, weights)) / norm, sqrt(_TINY))
        coarseness = float(np.vecdot(weights, weights)) / along**2  # 1/k**2
        factor, total = norm / sqrt(self.bits) / along, float(weights.sum())
        different = codes ^ query.signs
        low, high = (
            np.bitwise_count(different & np.packbits(plane).view(np.uint64))
            for plane in (levels & 1, levels >> 1)
        )
        # Sums of the columns are several times as fast as sums of the short rows.
        counts = distances / 2 + np.ascontiguousarray((low + 2 * high).T).sum(axis=0, dtype=np.uint16)
        squares, scales = facts.T
        estimates = factor * (total - 2 * counts) * scales
        required = floor + query.offset + squares / 2
        products, limit = query.square * squares, np.square(required)
        variances = (products - limit) * (coarseness - 1)
        variances += (np.square(scales) / squares - 1) * (coarseness * products - limit)
        deviations = np.sqrt(np.maximum(variances, 0) / (self.bits - 1))
        excess: Floats = estimates + _DEVIATIONS * deviations - required
        return excess


def _pack(bits: NDArray[np.bool_ | np.uint8]) -> Codes:
    return np.packbits(bits, axis=1).view(np.uint64)


def required_cosine(query: QueryCode, floor: float, squares: tuple[float, float]) -> float:
    """Return the least cosine of q-m and x-m at which <q, x> can reach `floor`.

    `squares` are the least and the largest |x-m|**2.
    """
    offset = floor + query.offset
    least, most = squares
    square = min(max(2 * offset, least), most)  # At 2 * offset the required cosine is smallest.
    return (offset + square / 2) / sqrt(square * query.square)


def search_radius(bits: int, cosine: float) -> int:
    """Return the Hamming radius that contains all vectors at `cosine` or more."""
    mean, deviation = expected_distance(bits, cosine)
    return int(mean + _DEVIATIONS * deviation)


def nearest_radius(bits: int, count: int) -> int:
    """Return the Hamming radius in which 16 of `count` unrelated rows are expected.

    More of them lie in it where the space is uneven.
    """
    return int(NormalDist(bits / 2, sqrt(bits) / 2).inv_cdf(min(0.5, _MIN_CANDIDATES / count)))


def expected_distance(bits: int, cosine: float) -> tuple[float, float]:
    """Return mean and standard deviation of the Hamming distance at `cosine`.

    Both are over all rotations. With p = t/pi the variance is bits * (p * (1 - p) - sin(t)**2 / pi**2) for
    many bits. The first term is that of independent bits; the second is their dependence, since a rotation
    preserves lengths and angle.
    """
    angle = acos(max(-1.0, min(1.0, cosine)))
    share = angle / pi
    return bits * share, sqrt(bits * max(0.0, share * (1 - share) - (sin(angle) / pi) ** 2))
