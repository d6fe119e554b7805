"""Detected persons and their trails as they are exported: documents for JSON, vectors as base64."""

from collections.abc import Sequence

from broker_bridge.contract.embeddings import to_base64
from broker_bridge.registry.mongo.client import Document

from .centroid import FaceCentroid
from .model import DetectedPerson, VisitSegment


def export_person(person: DetectedPerson, faces: Sequence[FaceCentroid]) -> Document:
    """All that is kept of a person but the trail; vectors are little-endian float32 of unit length."""
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
                "space": face.space,
                "vector": to_base64(face.unit.astype("<f4").tobytes()),
                "consistency": face.centroid_norm,
                "weight": face.weight,
            }
            for face in faces
        ],
        "created_at": person.created_at,
        "updated_at": person.updated_at,
    }


def export_segment(stay: VisitSegment) -> Document:
    return {
        "global_id": stay.global_id,
        "device_id": stay.device_id,
        "site_id": stay.site_id,
        "since": stay.since,
        "until": stay.until,
        "detections": stay.detections,
    }
