"""Hold the vectors of a search index: one centroid per person."""

from typing import NamedTuple

import numpy as np

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.vectors.index import EXACT_ROWS, are_units

# Persons that go into the index together: enough to train its sign bits.
BLOCK_ROWS = EXACT_ROWS + 280


class IndexedCentroid(NamedTuple):
    """A centroid's direction, float32[d] of unit length, and its norm 0..1."""

    unit: Vector
    centroid_norm: float

    @classmethod
    def of(cls, centroid: FaceCentroid) -> "IndexedCentroid":
        return cls(centroid.unit, centroid.centroid_norm)

    def is_usable(self, dimension: int) -> bool:
        """Return whether the vector fits a space of `dimension`.

        A document may be damaged.
        """
        return self.unit.shape == (dimension,) and bool(are_units(self.unit[np.newaxis])[0])


class LocalWrite(NamedTuple):
    """A write of this program that MongoDB has not confirmed.

    A `centroid` of None is a deletion.
    """

    centroid: IndexedCentroid | None
    written_at: float

    def is_confirmed_by(self, remote: IndexedCentroid | None) -> bool:
        if self.centroid is None or remote is None:
            return self.centroid is remote
        is_same_unit = np.array_equal(self.centroid.unit, remote.unit)
        return is_same_unit and self.centroid.centroid_norm == remote.centroid_norm


class CentroidBlock:
    """Persons on their way into an index, in one array to spare the memory."""

    def __init__(self, dimension: int) -> None:
        self.norms: dict[str, float] = {}
        self._units = np.empty((BLOCK_ROWS, dimension), dtype=np.float32)

    @property
    def is_full(self) -> bool:
        return len(self.norms) == BLOCK_ROWS

    @property
    def units(self) -> Vector:
        """float32[n, d], in the order of `norms`."""
        return self._units[: len(self.norms)]

    def add(self, global_id: int, centroid: IndexedCentroid) -> bool:
        """Return whether the centroid is usable."""
        if not centroid.is_usable(self._units.shape[1]):
            return False
        # A person that is deleted and written again during the read comes twice; the change stream has the
        # final state.
        if str(global_id) not in self.norms:
            self._units[len(self.norms)] = centroid.unit
            self.norms[str(global_id)] = centroid.centroid_norm
        return True
