"""Which face of this frame is which of the last: constant velocity, nearest first (docs/decisions/0011)."""

import math
from dataclasses import dataclass

from .detectors.detector import Float32

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
_MOST_GROWTH = math.log(2.0)
# An alpha-beta filter: the share of a surprise that is believed at once, and the seconds over which velocity
# follows it. A face that is not seen is expected to go on as it went for the horizon, in seconds.
_TRUST, _MEMORY, _HORIZON = 0.6, 0.3, 0.6


@dataclass
class _BoxTrack:
    """Places and velocity are complex numbers, x + yj in pixels: a picture has few faces, for which plain
    arithmetic costs less than arrays do."""

    id: str
    middle: complex
    size: float
    seen_at: float
    velocity: complex = 0j
    moved: bool = False

    def expected(self, now: float) -> complex:
        return self.middle + self.velocity * min(now - self.seen_at, _HORIZON)

    def reach(self, now: float) -> float:
        speed = _SPEED_KNOWN if self.moved else _SPEED_UNKNOWN
        return min(_REACH + speed * (now - self.seen_at), _FARTHEST)

    def see(self, middle: complex, size: float, now: float) -> None:
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
        self._tracks: list[_BoxTrack] = []
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._tracks)

    def update(self, boxes: Float32, now: float) -> list[str]:
        """The track id of each row of `boxes` (float32[n, 4], xywh pixels, with an area) at `now` (monotonic
        seconds, never before that of the last call)."""
        self._tracks = [track for track in self._tracks if now - track.seen_at <= self._max_age]
        faces = [(complex(x + w / 2, y + h / 2), math.sqrt(w * h)) for x, y, w, h in boxes.tolist()]
        ids: list[str | None] = [None] * len(faces)
        for row, column in _pairs(self._distances(faces, now)):
            track = self._tracks[column]
            track.see(*faces[row], now)
            ids[row] = track.id
        return [found or self._begin(*faces[row], now) for row, found in enumerate(ids)]

    def _begin(self, middle: complex, size: float, now: float) -> str:
        track = _BoxTrack(f"face_{self._next_number}", middle, size, now)
        self._next_number += 1
        self._tracks.append(track)
        return track.id

    def _distances(self, faces: list[tuple[complex, float]], now: float) -> dict[tuple[int, int], float]:
        """By (face, track): from where the track is expected to the face, in widths of a face; what is out
        of reach is not there."""
        tracks = [(track.expected(now), track.size, track.reach(now)) for track in self._tracks]
        distances = {}
        for row, (middle, size) in enumerate(faces):
            for column, (expected, known, reach) in enumerate(tracks):
                growth = abs(math.log(size / known))
                distance = abs(middle - expected) / math.sqrt(size * known) + _SIZE_WEIGHT * growth
                if distance <= reach and growth <= _MOST_GROWTH:
                    distances[row, column] = distance
        return distances


def _pairs(distances: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """(row, column) of the pairs to join, each row and each column at most once: nearest first, then any two
    pairs exchange partners where that makes the sum of squares smaller. For the few faces of a picture this
    is nearly always the optimal assignment; it keeps apart people who cross."""
    pairs: list[tuple[int, int]] = []
    rows, columns = set(), set()
    for row, column in sorted(distances, key=distances.__getitem__):
        if row not in rows and column not in columns:
            pairs.append((row, column))
            rows.add(row)
            columns.add(column)
    squares = {pair: distance * distance for pair, distance in distances.items()}
    for second in range(1, len(pairs)):
        for first in range(second):
            (row, column), (other_row, other_column) = pairs[first], pairs[second]
            now = squares[row, column] + squares[other_row, other_column]
            crossed = squares.get((row, other_column), math.inf) + squares.get((other_row, column), math.inf)
            if crossed < now:
                pairs[first], pairs[second] = (row, other_column), (other_row, column)
    return pairs
