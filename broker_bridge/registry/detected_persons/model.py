"""Define detected persons, their sightings and visit segments (seed 004).

A detected person has a global id, an enrolled identity a user id; a link says that they are the same.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from broker_bridge.contract.embeddings import Vector

MAX_QUALITY_SCORES = 20
BY_FACE = "face"


class Box(NamedTuple):
    """A box in pixels of a camera's picture, as on the wire."""

    x: float
    y: float
    width: float
    height: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """`x1, y1, x2, y2`: the form that seed 004 shows."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def overlap(self, other: "Box") -> float:
        """Return the intersection over union, 0..1."""
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
    """A face on a track of a camera.

    `vector` is float32[d] of unit length in `space`, `quality` is 0..1. `captured_at` is the camera's clock,
    which may be off: it only orders the observations of one camera. `seen_at` is the backend's clock at the
    arrival of the observation.
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
    """The sightings of a person by one camera: mean box in pixels, and the last box."""

    detections: int
    height: float
    width: float
    first_seen: datetime
    last_seen: datetime
    box: Box

    @classmethod
    def first(cls, observed: ObservedFace) -> "CameraRecord":
        return cls(
            1, observed.box.height, observed.box.width, observed.seen_at, observed.seen_at, observed.box
        )

    def count_sighting(self, observed: ObservedFace) -> None:
        self.detections += 1
        self.height += (observed.box.height - self.height) / self.detections
        self.width += (observed.box.width - self.width) / self.detections
        self.last_seen = observed.seen_at
        self.box = observed.box

    def combined_with(self, other: "CameraRecord") -> "CameraRecord":
        """Return one record for the sightings of both."""
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
    """One person across all cameras.

    `cameras` by device id, in the order of the first visits.

    `user_id` is the linked identity, `linked_by` is BY_FACE or the name of an API key. The identity may be
    deleted by now: the link stays, so that an erasure finds this person. `linked_before` are earlier links,
    `not_users` the links that an operator has rejected. `merged_into` is the global id that an operator has
    merged this person into.
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
    quality_scores: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_QUALITY_SCORES))
    total_appearances: int = 1
    total_detections: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @classmethod
    def create(cls, global_id: int, observed: ObservedFace, user_id: str | None = None) -> "DetectedPerson":
        """Return a new person; the caller counts the sighting with `count_sighting`."""
        return cls(
            global_id=global_id,
            site_id=observed.site_id,
            first_seen=observed.seen_at,
            last_seen=observed.seen_at,
            cameras={},
            user_id=user_id,
            linked_by=BY_FACE if user_id else None,
            created_at=observed.seen_at,
            updated_at=observed.seen_at,
        )

    def count_sighting(self, observed: ObservedFace, timeout: timedelta) -> None:
        """Count a sighting.

        It is a new appearance after an absence of more than `timeout`.
        """
        if observed.seen_at - self.last_seen > timeout:
            self.total_appearances += 1
        self.last_seen = max(self.last_seen, observed.seen_at)
        self.site_id = observed.site_id
        self.total_detections += 1
        camera = self.cameras.get(observed.device_id)
        if camera is None:
            self.cameras[observed.device_id] = CameraRecord.first(observed)
        else:
            camera.count_sighting(observed)
        if observed.quality is not None:
            self.face_quality = max(self.face_quality or 0.0, observed.quality)
            self.quality_scores.append(observed.quality)

    def is_active(self, now: datetime, timeout: timedelta) -> bool:
        return now - self.last_seen <= timeout

    @property
    def cameras_visited(self) -> tuple[str, ...]:
        return tuple(self.cameras)

    @property
    def avg_height_pixels(self) -> float | None:
        """The mean of the cameras' means: each camera counts once."""
        return _mean([camera.height for camera in self.cameras.values()])

    @property
    def avg_width_pixels(self) -> float | None:
        return _mean([camera.width for camera in self.cameras.values()])

    def avg_height_meters(self, metres_per_pixel: Mapping[str, float]) -> float | None:
        """Return the mean height in metres over the calibrated cameras.

        None if none is calibrated.
        """
        scaled = [
            camera.height * metres_per_pixel[device_id]
            for device_id, camera in self.cameras.items()
            if device_id in metres_per_pixel
        ]
        return _mean(scaled)


@dataclass
class VisitSegment:
    """A stay of a person on one camera, without a break of more than the timeout."""

    global_id: int
    device_id: str
    site_id: str
    since: datetime
    until: datetime
    detections: int = 1


def aggregate(root: DetectedPerson, merged: Sequence[DetectedPerson]) -> DetectedPerson:
    """Return one record for a merge group, with the ids and dates of its root.

    The first name and the first link count, those of the root before those of `merged`.
    """
    persons = [root, *merged]
    by_time = sorted(persons, key=lambda person: person.last_seen)
    cameras: dict[str, CameraRecord] = {}
    visits = sorted(
        (
            (camera.first_seen, device_id, camera)
            for person in persons
            for device_id, camera in person.cameras.items()
        ),
        key=lambda visit: visit[0],
    )
    for _, device_id, camera in visits:
        cameras[device_id] = cameras[device_id].combined_with(camera) if device_id in cameras else camera
    qualities = [person.face_quality for person in persons if person.face_quality is not None]
    linked = next((person for person in persons if person.user_id), root)
    scores = [score for person in by_time for score in person.quality_scores]
    return DetectedPerson(
        global_id=root.global_id,
        site_id=by_time[-1].site_id,
        first_seen=min(person.first_seen for person in persons),
        last_seen=by_time[-1].last_seen,
        cameras=cameras,
        user_id=linked.user_id,
        linked_by=linked.linked_by,
        linked_before=root.linked_before,
        not_users=root.not_users,
        assigned_name=next((person.assigned_name for person in persons if person.assigned_name), None),
        merged_into=root.merged_into,
        face_quality=max(qualities, default=None),
        quality_scores=deque(scores, maxlen=MAX_QUALITY_SCORES),
        total_appearances=sum(person.total_appearances for person in persons),
        total_detections=sum(person.total_detections for person in persons),
        created_at=root.created_at,
        updated_at=by_time[-1].updated_at,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
