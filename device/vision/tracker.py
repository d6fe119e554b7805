"""Which face of this frame is which of the last: constant velocity, nearest first (docs/decisions/0011)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .detector import Float32

Float64 = NDArray[np.float64]

# All lengths are in widths of a face (of some 16 cm), so they hold for near and far people alike. A face is
# looked for this far from where it is expected, as detectors' boxes jump about ...
_REACH = 0.7
# ... plus this much for each second since it was seen: people walk past at six widths a second, and may stop
# or turn once their velocity is known ...
_SPEED_UNKNOWN, _SPEED_KNOWN = 4.0, 0.8
# ... but never farther, or the next person would get the id of the one who has left.
_FARTHEST = 1.5
# How much a change of size by a factor of e counts, as a distance; and the change that nobody makes.
_SIZE_WEIGHT = 0.5
_MOST_GROWTH = 2.0
# An alpha-beta filter: the share of a surprise that is believed at once, and the seconds over which velocity
# follows it. A face that is not seen is expected to go on as it went for the horizon, in seconds.
_TRUST, _MEMORY, _HORIZON = 0.6, 0.3, 0.6


@dataclass
class _Track:
    id: str
    middle: Float64
    size: float
    seen_at: float
    velocity: Float64
    moved: bool = False

    def expected(self, now: float) -> Float64:
        place: Float64 = self.middle + self.velocity * min(now - self.seen_at, _HORIZON)
        return place

    def reach(self, now: float) -> float:
        speed = _SPEED_KNOWN if self.moved else _SPEED_UNKNOWN
        return min(_REACH + speed * (now - self.seen_at), _FARTHEST)

    def see(self, middle: Float64, size: float, now: float) -> None:
        elapsed, expected = now - self.seen_at, self.expected(now)
        surprise = middle - expected
        self.middle = expected + surprise * (_TRUST if self.moved else 1.0)
        if elapsed > 0:
            share = elapsed / (elapsed + _MEMORY) if self.moved else 1.0
            self.velocity += share * surprise / elapsed
            self.moved = True
        self.size, self.seen_at = size, now


class FaceTracker:
    """Gives faces ids that last while they move through the picture: `face_0`, `face_1`, ...

    It goes by the times of the frames, so a camera may drop frames or be slow. A track that was not seen for
    `max_age_seconds` is forgotten, and its id is never given again by this tracker.
    """

    def __init__(self, max_age_seconds: float = 1.0) -> None:
        self._max_age = max_age_seconds
        self._tracks: list[_Track] = []
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._tracks)

    def update(self, boxes: Float32, now: float) -> list[str]:
        """The track id of each row of `boxes` (float32[n, 4], xywh pixels, with an area) at `now` (monotonic
        seconds, never before that of the last call)."""
        self._tracks = [track for track in self._tracks if now - track.seen_at <= self._max_age]
        wide = boxes.astype(np.float64)
        middles, sizes = wide[:, :2] + wide[:, 2:] / 2, np.sqrt(wide[:, 2] * wide[:, 3])
        ids: list[str | None] = [None] * len(boxes)
        if len(boxes) and self._tracks:
            for row, column in _pairs(self._distances(middles, sizes, now)):
                track = self._tracks[column]
                track.see(middles[row], float(sizes[row]), now)
                ids[row] = track.id
        return [found or self._begin(middles[row], float(sizes[row]), now) for row, found in enumerate(ids)]

    def _begin(self, middle: Float64, size: float, now: float) -> str:
        track = _Track(f"face_{self._next_number}", middle, size, now, np.zeros(2))
        self._next_number += 1
        self._tracks.append(track)
        return track.id

    def _distances(self, middles: Float64, sizes: Float64, now: float) -> Float64:
        """float64[faces, tracks]: from where each track is expected to each face, in widths of a face;
        infinite where it is out of reach."""
        expected = np.stack([track.expected(now) for track in self._tracks])
        known = np.array([track.size for track in self._tracks])
        reach = np.array([track.reach(now) for track in self._tracks])
        away = np.linalg.norm(middles[:, None] - expected, axis=2) / np.sqrt(np.outer(sizes, known))
        growth = np.abs(np.log(sizes[:, None] / known))
        distances: Float64 = away + _SIZE_WEIGHT * growth
        return np.where((distances <= reach) & (growth <= np.log(_MOST_GROWTH)), distances, np.inf)


def _pairs(distances: Float64) -> list[tuple[int, int]]:
    """(row, column) of the pairs to join, each row and each column at most once: nearest first, then any two
    pairs exchange partners where that makes the sum of squares smaller. For the few faces of a picture this
    is nearly always the optimal assignment; it keeps apart people who cross."""
    left = distances.copy()
    pairs: list[tuple[int, int]] = []
    for _ in range(min(left.shape)):
        row, column = divmod(int(left.argmin()), left.shape[1])
        if not np.isfinite(left[row, column]):
            break
        left[row, :] = left[:, column] = np.inf
        pairs.append((row, column))
    squares = distances**2
    for second in range(1, len(pairs)):
        for first in range(second):
            (row, column), (other_row, other_column) = pairs[first], pairs[second]
            now = squares[row, column] + squares[other_row, other_column]
            if squares[row, other_column] + squares[other_row, column] < now:
                pairs[first], pairs[second] = (row, other_column), (other_row, column)
    return pairs
