"""Convert detected persons and visit segments to exported documents."""

from collections.abc import Sequence

from broker_bridge.contract.embeddings import to_base64
from broker_bridge.registry.mongo.client import Document

from .centroid import FaceCentroid
from .model import DetectedPerson, VisitSegment


def export_person(person: DetectedPerson, centroids: Sequence[FaceCentroid]) -> Document:
    """Return all stored fields of a person but the trail.

    Vectors are base64 of little-endian float32 of unit length.
    """
    return {
        "global_id": person.global_id,
        "merged_into": person.merged_into,
        "user_id": person.user_id,
        "linked_by": person.linked_by,
        "linked_before": list(person.linked_before),
        "not_users": list(person.not_users),
        "assigned_name": person.assigned_name,
        "current_site": person.site_id,
        "first_seen": person.first_seen,
        "last_seen": person.last_seen,
        "total_appearances": person.total_appearances,
        "total_detections": person.total_detections,
        "face_quality": person.face_quality,
        "quality_scores": list(person.quality_scores),
        "cameras": [
            {
                "device_id": device_id,
                "detections": camera.detections,
                "height_pixels": camera.height,
                "width_pixels": camera.width,
                "first_seen": camera.first_seen,
                "last_seen": camera.last_seen,
                "bbox": list(camera.box.corners),
            }
            for device_id, camera in person.cameras.items()
        ],
        "faces": [
            {
                "space": centroid.space,
                "consistency": centroid.centroid_norm,
                "weight": centroid.weight,
                "vector": to_base64(centroid.unit.astype("<f4").tobytes()),
            }
            for centroid in centroids
        ],
        "created_at": person.created_at,
        "updated_at": person.updated_at,
    }


def export_segment(segment: VisitSegment) -> Document:
    return {
        "global_id": segment.global_id,
        "device_id": segment.device_id,
        "site_id": segment.site_id,
        "since": segment.since,
        "until": segment.until,
        "detections": segment.detections,
    }
