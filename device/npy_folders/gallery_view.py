"""The gallery of one space for the watched folders, and its changes."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from broker_bridge.contract.embeddings import to_array
from device.enrollment.gallery_rows import GalleryRows

# Closer than two images of a person ever are, but wide enough for the rounding of one vector.
_SAME_DISTANCE = 1e-5
_ROWS_AT_ONCE = 4096


class GallerySnapshot:
    """One immutable gallery.

    `first` is the row of each identity's first template in `rows`.
    """

    def __init__(self, rows: GalleryRows) -> None:
        self.rows = rows
        # Backwards, so that the first template of an identity stays.
        count = len(rows.user_ids)
        self.first = dict(zip(reversed(rows.user_ids), range(count - 1, -1, -1), strict=True))
        self._further: dict[str, list[int]] = {}
        if len(self.first) < count:
            for row, user_id in enumerate(rows.user_ids):
                if self.first[user_id] != row:
                    self._further.setdefault(user_id, []).append(row)

    @property
    def user_ids(self) -> set[str]:
        return set(self.first)

    def first_vector(self, user_id: str) -> bytes | None:
        """Return the identity's first template as bytes of float32[d], or None."""
        row = self.first.get(user_id)
        return None if row is None else self.rows.vectors[row].astype("<f4").tobytes()

    def has_vector(self, user_id: str, vector: bytes) -> bool:
        """Return whether `vector` is a template of the identity, up to rounding.

        `vector` is float32[d] of unit length.
        """
        if user_id not in self.first:
            return False
        rows = [self.first[user_id], *self._further.get(user_id, ())]
        return bool((self.rows.vectors[rows] @ to_array(vector)).max() > 1.0 - _SAME_DISTANCE)

    def changed_since(self, before: "GallerySnapshot") -> set[str]:
        """Return user ids that were added or removed, or have another first template."""
        if self.rows.vectors is before.rows.vectors and self.rows.user_ids == before.rows.user_ids:
            return set()
        if self.rows.dimension != before.rows.dimension:
            return self.user_ids | before.user_ids
        changed = self.first.keys() ^ before.first.keys()
        common = list(self.first.keys() & before.first.keys())
        for part in _parts(common):
            ours = self.rows.vectors[[self.first[user_id] for user_id in part]]
            theirs = before.rows.vectors[[before.first[user_id] for user_id in part]]
            changed |= {part[int(row)] for row in np.flatnonzero((ours != theirs).any(axis=1))}
        return changed


def _parts(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _ROWS_AT_ONCE):
        yield items[start : start + _ROWS_AT_ONCE]


class GalleryFeed:
    """The latest rows of every space; `update` is for the link's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, GalleryRows] = {}
        self._on_change: Callable[[], None] = _ignore_change

    def update(self, rows: GalleryRows) -> None:
        with self._lock:
            self._rows[rows.space] = rows
        self._on_change()

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after every `update` from now on."""
        self._on_change = on_change

    def latest(self, space: str) -> GalleryRows | None:
        with self._lock:
            return self._rows.get(space)


def _ignore_change() -> None:
    """Do nothing, before a subscription."""
