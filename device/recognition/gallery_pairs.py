"""Compare a gallery with itself, to see whether its limits keep people apart.

Limits that do not fit a model show in the gallery alone: nearly all of its people lie within each other's
match distance. A few pairs are normal: twins, or a visitor enrolled twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker_bridge.vectors.index import are_units
from device.vision.detectors.detector import Float32

# Bounds the work: 200 people have 19,900 pairs, compared in some 20 ms.
_MOST_PEOPLE: Final = 200
_MOST_TEMPLATES: Final = 5
_SEED = 17
# Of limits that fit, well under one pair in a hundred lies within the distance.
_NORMAL_SHARE: Final = 0.05
# Twins and people who are enrolled twice give one pair for two people.
_NORMAL_PER_PERSON: Final = 0.75


@dataclass(frozen=True)
class GalleryPairs:
    """The pairs of different people of a gallery, or of a sample of it.

    `within` of the `pairs` of `people` have templates that lie within the match distance.
    """

    people: int
    pairs: int
    within: int

    @property
    def share(self) -> float:
        return self.within / self.pairs if self.pairs else 0.0

    @property
    def is_too_many(self) -> bool:
        """Whether look-alikes and second enrollments cannot explain so many pairs.

        Two people are no evidence, three are if all their pairs are within it.
        """
        return self.within > _NORMAL_SHARE * self.pairs + _NORMAL_PER_PERSON * self.people


def compare_pairs(user_ids: Sequence[str], vectors: Float32, distance: float) -> GalleryPairs:
    """Compare the people of a gallery, by their nearest templates.

    Row i of `vectors` (float32[n, d], unit length) belongs to `user_ids[i]`; other rows are left out. Of a
    large gallery a sample is compared, always the same one.
    """
    rows = _sample(user_ids)
    sample = vectors[[row for own in rows for row in own]]
    usable = are_units(sample)
    similarities = np.where(usable[:, None] & usable[None, :], sample @ sample.T, -1.0)
    if not len(rows):
        return GalleryPairs(0, 0, 0)
    starts = np.cumsum([0, *(len(own) for own in rows[:-1])])
    nearest = np.maximum.reduceat(np.maximum.reduceat(similarities, starts, axis=0), starts, axis=1)
    people = len(rows)
    pairs = np.triu(np.ones((people, people), dtype=bool), k=1)
    within = int((nearest[pairs] >= 1.0 - distance).sum())
    return GalleryPairs(people, people * (people - 1) // 2, within)


def _sample(user_ids: Sequence[str]) -> list[list[int]]:
    """Return the rows of some people, those of one person together."""
    rows: dict[str, list[int]] = {}
    for row, user_id in enumerate(user_ids):
        rows.setdefault(user_id, []).append(row)
    chosen = list(rows)
    if len(chosen) > _MOST_PEOPLE:
        picked = np.random.RandomState(_SEED).choice(len(chosen), _MOST_PEOPLE, replace=False)
        chosen = [chosen[position] for position in sorted(picked)]
    return [rows[user_id][:_MOST_TEMPLATES] for user_id in chosen]
