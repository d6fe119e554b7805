"""People as cameras see them, whoever they are (seed 004): values and their arithmetic.

A detected person has a number, the global id; an enrolled one (`people.Person`) a user id. One may be both.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from broker_bridge.contract.embeddings import Vector

MOST_QUALITY_SCORES = 20
BY_FACE = "face"


class Box(NamedTuple):
    """Pixels of a camera's picture, as on the wire."""

    x: float
    y: float
    width: float
    height: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """`x1, y1, x2, y2`: the form that seed 004 shows."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0..1."""
        left, top, right, bottom = self.corners
        other_left, other_top, other_right, other_bottom = other.corners
        width = min(right, other_right) - max(left, other_left)
        height = min(bottom, other_bottom) - max(top, other_top)
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (self.width * self.height + other.width * other.height - shared)


@dataclass(frozen=True)
class ObservedFace:
    """A face on a track of a camera: `vector` is float32[d] of unit length in `space`, `quality` 0..1.

    `captured_at` is the camera's clock, which may be off: it only orders what one camera says. `seen_at` is
    the backend's, when the observation came.
    """

    device_id: str
    site_id: str
    track_id: str
    box: Box
    space: str
    vector: Vector
    quality: float | None
    captured_at: datetime
    seen_at: datetime


@dataclass
class CameraRecord:
    """What one camera has seen of a person: mean box in pixels, and the last position."""

    detections: int
    height: float
    width: float
    first_seen: datetime
    last_seen: datetime
    box: Box

    @classmethod
    def first(cls, seen: ObservedFace) -> "CameraRecord":
        return cls(1, seen.box.height, seen.box.width, seen.seen_at, seen.seen_at, seen.box)

    def count_sighting(self, seen: ObservedFace) -> None:
        self.detections += 1
        self.height += (seen.box.height - self.height) / self.detections
        self.width += (seen.box.width - self.width) / self.detections
        self.last_seen = seen.seen_at
        self.box = seen.box

    def combined_with(self, other: "CameraRecord") -> "CameraRecord":
        """Both together, as of one person."""
        detections = self.detections + other.detections
        share = other.detections / detections
        return CameraRecord(
            detections=detections,
            height=self.height + share * (other.height - self.height),
            width=self.width + share * (other.width - self.width),
            first_seen=min(self.first_seen, other.first_seen),
            last_seen=max(self.last_seen, other.last_seen),
            box=max(self, other, key=lambda one: one.last_seen).box,
        )


@dataclass
class DetectedPerson:
    """One person across all cameras; `cameras` by device id in the order of the first visits.

    `user_id` is the enrolled person whom it is, told by `linked_by`: BY_FACE, or the name of an API key. They
    may be deleted by now: the link sleeps then, so that erasing them finds this person. `linked_before` are
    earlier ones, `not_users` those whom somebody has said it is not. `merged_into` is the global id of whom
    it turned out to be.
    """

    global_id: int
    site_id: str
    first_seen: datetime
    last_seen: datetime
    cameras: dict[str, CameraRecord]
    user_id: str | None = None
    linked_by: str | None = None
    linked_before: tuple[str, ...] = ()
    not_users: tuple[str, ...] = ()
    assigned_name: str | None = None
    merged_into: int | None = None
    face_quality: float | None = None
    quality_scores: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_QUALITY_SCORES))
    total_appearances: int = 1
    total_detections: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @classmethod
    def create(cls, global_id: int, seen: ObservedFace, user_id: str | None = None) -> "DetectedPerson":
        """Somebody new; what is seen is still to be counted with `see`."""
        return cls(
            global_id=global_id,
            site_id=seen.site_id,
            first_seen=seen.seen_at,
            last_seen=seen.seen_at,
            cameras={},
            user_id=user_id,
            linked_by=BY_FACE if user_id else None,
            created_at=seen.seen_at,
            updated_at=seen.seen_at,
        )

    def count_sighting(self, seen: ObservedFace, timeout: timedelta) -> None:
        """Count a sighting; after `timeout` away it is a new appearance."""
        if seen.seen_at - self.last_seen > timeout:
            self.total_appearances += 1
        self.last_seen = max(self.last_seen, seen.seen_at)
        self.site_id = seen.site_id
        self.total_detections += 1
        camera = self.cameras.get(seen.device_id)
        if camera is None:
            self.cameras[seen.device_id] = CameraRecord.first(seen)
        else:
            camera.count_sighting(seen)
        if seen.quality is not None:
            self.face_quality = max(self.face_quality or 0.0, seen.quality)
            self.quality_scores.append(seen.quality)

    def is_active(self, now: datetime, timeout: timedelta) -> bool:
        return now - self.last_seen <= timeout

    @property
    def cameras_visited(self) -> tuple[str, ...]:
        return tuple(self.cameras)

    @property
    def avg_height_pixels(self) -> float | None:
        """The mean of the cameras' means: each camera counts once, however much it has seen."""
        return _mean([camera.height for camera in self.cameras.values()])

    @property
    def avg_width_pixels(self) -> float | None:
        return _mean([camera.width for camera in self.cameras.values()])

    def avg_height_meters(self, metres_per_pixel: Mapping[str, float]) -> float | None:
        """As avg_height_pixels, over the cameras that are calibrated; None if none is."""
        scaled = [
            camera.height * metres_per_pixel[device_id]
            for device_id, camera in self.cameras.items()
            if device_id in metres_per_pixel
        ]
        return _mean(scaled)


@dataclass
class VisitSegment:
    """A person on one camera without a break of more than the timeout: a piece of a trail."""

    global_id: int
    device_id: str
    site_id: str
    since: datetime
    until: datetime
    detections: int = 1


def aggregate(root: DetectedPerson, members: Sequence[DetectedPerson]) -> DetectedPerson:
    """`root` with what was seen of those who were merged into it; its own name and link come first."""
    everyone = [root, *members]
    by_time = sorted(everyone, key=lambda one: one.last_seen)
    cameras: dict[str, CameraRecord] = {}
    visits = sorted(
        (
            (camera.first_seen, device_id, camera)
            for one in everyone
            for device_id, camera in one.cameras.items()
        ),
        key=lambda visit: visit[0],
    )
    for _, device_id, camera in visits:
        cameras[device_id] = cameras[device_id].combined_with(camera) if device_id in cameras else camera
    qualities = [one.face_quality for one in everyone if one.face_quality is not None]
    linked = next((one for one in everyone if one.user_id), root)
    scores = [score for one in by_time for score in one.quality_scores]
    return DetectedPerson(
        global_id=root.global_id,
        site_id=by_time[-1].site_id,
        first_seen=min(one.first_seen for one in everyone),
        last_seen=by_time[-1].last_seen,
        cameras=cameras,
        user_id=linked.user_id,
        linked_by=linked.linked_by,
        linked_before=root.linked_before,
        not_users=root.not_users,
        assigned_name=next((one.assigned_name for one in everyone if one.assigned_name), None),
        merged_into=root.merged_into,
        face_quality=max(qualities, default=None),
        quality_scores=deque(scores, maxlen=MOST_QUALITY_SCORES),
        total_appearances=sum(one.total_appearances for one in everyone),
        total_detections=sum(one.total_detections for one in everyone),
        created_at=root.created_at,
        updated_at=by_time[-1].updated_at,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
