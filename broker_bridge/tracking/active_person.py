"""Hold a detected person in the tracker's memory."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import DetectedPerson, ObservedFace, VisitSegment


@dataclass
class ActivePerson:
    """A detected person in memory, with its centroids and its open visit segments.

    `centroids` are by space, `merged_centroids` those of the other members of its merge group.
    `stored_centroids` are the centroids as MongoDB has them. `segments` has the newest visit segment by
    device id, `unwritten_segments` those that MongoDB does not have as they are now. Until `is_stored`, the
    global id is published to no camera. `checked_weight` is the weight at the last search among the
    enrolled identities.
    """

    record: DetectedPerson
    centroids: dict[str, FaceCentroid]
    merged_centroids: tuple[FaceCentroid, ...] = ()
    stored_centroids: dict[str, FaceCentroid] = field(default_factory=dict)
    segments: dict[str, VisitSegment] = field(default_factory=dict)
    unwritten_segments: dict[tuple[str, datetime], VisitSegment] = field(default_factory=dict)
    is_stored: bool = True
    checked_weight: float = 0.0

    @property
    def global_id(self) -> int:
        return self.record.global_id

    @property
    def weight(self) -> float:
        return sum(centroid.weight for centroid in self.centroids.values())

    def count_sighting(self, observed: ObservedFace, timeout: timedelta) -> None:
        """Count a sighting in the statistics and in the visit segment of its camera."""
        self.record.count_sighting(observed, timeout)
        seen_at = observed.seen_at
        segment = self.segments.get(observed.device_id)
        if segment is None or seen_at - segment.until > timeout:
            segment = VisitSegment(
                self.global_id, observed.device_id, observed.site_id, seen_at, seen_at, detections=0
            )
            self.segments[observed.device_id] = segment
        segment.until = max(segment.until, seen_at)
        segment.detections += 1
        self.unwritten_segments[segment.device_id, segment.since] = segment

    def moved_centroids(self) -> list[FaceCentroid]:
        """Return the centroids that MongoDB lacks, or has too far from where they are now."""
        return [
            centroid
            for space, centroid in self.centroids.items()
            if space not in self.stored_centroids or centroid.has_moved(self.stored_centroids[space])
        ]
