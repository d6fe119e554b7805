"""Which face of this frame is which of the last: a greedy tracker by overlap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .detector import Float32


@dataclass
class _Track:
    id: str
    box: Float32
    seen_at: float


class IouTracker:
    """Gives faces ids that last while they overlap from frame to frame: `face_0`, `face_1`, ...

    The pair with the largest intersection over union is joined first, down to `min_iou`. A track that was
    not seen for `max_age_seconds` is forgotten, and its id is never given again by this tracker.
    """

    def __init__(self, max_age_seconds: float = 1.0, min_iou: float = 0.3) -> None:
        self._max_age = max_age_seconds
        self._min_iou = min_iou
        self._tracks: list[_Track] = []
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._tracks)

    def update(self, boxes: Float32, now: float) -> list[str]:
        """The track id of each row of `boxes` (float32[n, 4], xywh pixels) at `now` (monotonic seconds)."""
        self._tracks = [track for track in self._tracks if now - track.seen_at <= self._max_age]
        ids: list[str | None] = [None] * len(boxes)
        for row, column in self._pairs(boxes):
            track = self._tracks[column]
            track.box, track.seen_at = boxes[row], now
            ids[row] = track.id
        return [found or self._begin(boxes[row], now) for row, found in enumerate(ids)]

    def _begin(self, box: Float32, now: float) -> str:
        track = _Track(f"face_{self._next_number}", box, now)
        self._next_number += 1
        self._tracks.append(track)
        return track.id

    def _pairs(self, boxes: Float32) -> list[tuple[int, int]]:
        """(row of `boxes`, index of track) for the pairs to join, each row and each track at most once."""
        if not len(boxes) or not self._tracks:
            return []
        overlap = intersection_over_union(boxes, np.stack([track.box for track in self._tracks]))
        pairs = []
        for _ in range(min(overlap.shape)):
            row, column = divmod(int(overlap.argmax()), overlap.shape[1])
            if overlap[row, column] < self._min_iou:
                break
            pairs.append((row, column))
            overlap[row, :] = -1.0
            overlap[:, column] = -1.0
        return pairs


def intersection_over_union(first: Float32, second: Float32) -> NDArray[np.float64]:
    """float64[n, m] in 0..1 for boxes float32[n, 4] and float32[m, 4] in xywh; 0 where both are empty."""
    a = first.astype(np.float64)[:, None, :]
    b = second.astype(np.float64)[None, :, :]
    left_top = np.maximum(a[..., :2], b[..., :2])
    right_bottom = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.prod(np.clip(right_bottom - left_top, 0, None), axis=-1)
    union = np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio
