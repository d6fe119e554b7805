"""Remember where each active person was last seen in a camera's picture."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker_bridge.registry.detected_persons.model import Box, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings

_SAME_PICTURE = timedelta(seconds=0.1)
# Per camera; past it, positions that are too old to count are dropped.
_MAX_POSITIONS = 50


@dataclass
class PicturePosition:
    """The last position of an active person in one camera's picture.

    `is_sure`: the match was no guess, now or a moment before. One guess must not support the next, or a
    look-alike would keep the global id that one of its faces got.
    """

    global_id: int
    track_id: str
    box: Box
    captured_at: datetime
    is_sure: bool

    def is_elsewhere(self, observed: ObservedFace) -> bool:
        """Return whether this is another track of the very picture of `observed`."""
        return (
            self.track_id != observed.track_id
            and abs(observed.captured_at - self.captured_at) < _SAME_PICTURE
        )


class PicturePositions:
    """The positions of active persons by camera and global id."""

    def __init__(self, settings: TrackingSettings) -> None:
        self._min_overlap = settings.position_overlap
        self._max_age = timedelta(seconds=settings.position_seconds)
        self._by_camera: dict[str, dict[int, PicturePosition]] = {}

    def on_camera(self, device_id: str) -> Mapping[int, PicturePosition]:
        return self._by_camera.get(device_id, {})

    def was_here(self, position: PicturePosition, observed: ObservedFace) -> bool:
        """Return whether a recent sure position has the track or place of `observed`."""
        return (
            position.is_sure
            and self._is_same_place(position, observed)
            and abs(observed.captured_at - position.captured_at) <= self._max_age
        )

    def record(self, global_id: int, observed: ObservedFace, *, is_sure: bool) -> None:
        """Store the position of a person.

        A guess in the place of a sure position stays sure.
        """
        positions = self._by_camera.setdefault(observed.device_id, {})
        if len(positions) > _MAX_POSITIONS:
            self._drop_old(positions, observed.captured_at)
        previous = positions.get(global_id)
        was_sure = previous is not None and previous.is_sure and self._is_same_place(previous, observed)
        positions[global_id] = PicturePosition(
            global_id, observed.track_id, observed.box, observed.captured_at, is_sure or was_sure
        )

    def remove(self, global_ids: Set[int]) -> None:
        for positions in self._by_camera.values():
            for global_id in global_ids & positions.keys():
                del positions[global_id]

    def _is_same_place(self, position: PicturePosition, observed: ObservedFace) -> bool:
        return (
            position.track_id == observed.track_id or position.box.overlap(observed.box) >= self._min_overlap
        )

    def _drop_old(self, positions: dict[int, PicturePosition], captured_at: datetime) -> None:
        old = [one.global_id for one in positions.values() if captured_at - one.captured_at > self._max_age]
        for global_id in old:
            del positions[global_id]
