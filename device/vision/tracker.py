"""Track faces over frames by constant velocity, nearest first.

See docs/decisions/0011.
"""

import math
from dataclasses import dataclass

from .detectors.detector import Float32

# All lengths are in face widths (of some 16 cm), so they hold at every distance. A face is searched for
# within this radius of its expected centre, since detectors' boxes jitter ...
_RADIUS = 0.7
# ... plus this much per second since it was seen: walkers pass at six widths a second, and may stop or turn
# once their velocity is known ...
_SPEED_UNKNOWN, _SPEED_KNOWN = 4.0, 0.8
# ... but never farther, or the next face would get the id of one that has left.
_MAX_RADIUS = 1.5
# The distance that a change of size by a factor of e counts as, and the greatest plausible change.
_SIZE_WEIGHT = 0.5
_MOST_GROWTH = math.log(2.0)
# An alpha-beta filter: the share of a residual that corrects the position at once, and the seconds over which
# the velocity follows it. An unseen face is extrapolated for the horizon, in seconds.
_GAIN, _MEMORY, _HORIZON = 0.6, 0.3, 0.6


@dataclass
class _BoxTrack:
    """A track; positions and velocity are complex numbers, x + yj in pixels.

    For the few faces of a frame, plain arithmetic costs less than arrays.
    """

    id: str
    middle: complex
    size: float
    seen_at: float
    velocity: complex = 0j
    moved: bool = False

    def expected(self, now: float) -> complex:
        return self.middle + self.velocity * min(now - self.seen_at, _HORIZON)

    def radius(self, now: float) -> float:
        speed = _SPEED_KNOWN if self.moved else _SPEED_UNKNOWN
        return min(_RADIUS + speed * (now - self.seen_at), _MAX_RADIUS)

    def correct(self, middle: complex, size: float, now: float) -> None:
        elapsed, expected = now - self.seen_at, self.expected(now)
        residual = middle - expected
        self.middle = expected + residual * (_GAIN if self.moved else 1.0)
        if elapsed > 0:
            share = elapsed / (elapsed + _MEMORY) if self.moved else 1.0
            self.velocity += share * residual / elapsed
            self.moved = True
        self.size, self.seen_at = size, now


class FaceTracker:
    """The assignment of ids to faces that move: `face_0`, `face_1`, ...

    It uses the times of frames, so a camera may drop frames or be slow. A track that was not seen for
    `max_age_seconds` is forgotten, and this tracker never reuses its id.
    """

    def __init__(self, max_age_seconds: float = 1.0) -> None:
        self._max_age = max_age_seconds
        self._tracks: list[_BoxTrack] = []
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._tracks)

    def update(self, boxes: Float32, now: float) -> list[str]:
        """Return the track id of each row of `boxes`, seen at `now`.

        `boxes` is float32[n, 4], xywh in pixels, with areas; `now` is monotonic seconds and never decreases.
        """
        self._tracks = [track for track in self._tracks if now - track.seen_at <= self._max_age]
        faces = [(complex(x + w / 2, y + h / 2), math.sqrt(w * h)) for x, y, w, h in boxes.tolist()]
        ids: list[str | None] = [None] * len(faces)
        for row, column in _pair_up(self._distances(faces, now)):
            track = self._tracks[column]
            track.correct(*faces[row], now)
            ids[row] = track.id
        return [track_id or self._begin(*faces[row], now) for row, track_id in enumerate(ids)]

    def _begin(self, middle: complex, size: float, now: float) -> str:
        track = _BoxTrack(f"face_{self._next_number}", middle, size, now)
        self._next_number += 1
        self._tracks.append(track)
        return track.id

    def _distances(self, faces: list[tuple[complex, float]], now: float) -> dict[tuple[int, int], float]:
        """Return distances by (face, track) in face widths.

        A distance is from the track's expected centre. Pairs outside the track's radius are left out.
        """
        tracks = [(track.expected(now), track.size, track.radius(now)) for track in self._tracks]
        distances = {}
        for row, (middle, size) in enumerate(faces):
            for column, (expected, known, radius) in enumerate(tracks):
                growth = abs(math.log(size / known))
                distance = abs(middle - expected) / math.sqrt(size * known) + _SIZE_WEIGHT * growth
                if distance <= radius and growth <= _MOST_GROWTH:
                    distances[row, column] = distance
        return distances


def _pair_up(distances: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Return the (row, column) pairs to join, each row and column at most once.

    Nearest first; then two pairs swap partners where that reduces the sum of squares. For the few faces of a
    frame this is nearly always the optimal assignment, also where tracks cross.
    """
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
