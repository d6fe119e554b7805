"""The limits of a match in one space."""

from dataclasses import dataclass
from typing import Final

EXACT_BEYOND: Final = 0.15
"""Matches are exact this far beyond their limits.

Drawings, and recordings that are replayed under looser limits, then have true distances.
"""


@dataclass(frozen=True)
class MatchLimits:
    """The nearest identity is a match within `distance`, the cosine distance (0..2).

    The second-nearest must be at least `margin` farther.
    """

    distance: float
    margin: float = 0.0

    @property
    def floor(self) -> float:
        """The similarity down to which a gallery's answers must be exact."""
        return max(-1.0, 1.0 - self.distance - self.margin - EXACT_BEYOND)
