"""Convert detected persons, centroids and segments to and from documents."""

from typing import Any

import numpy as np
from bson.binary import VECTOR_SUBTYPE, Binary

from broker_bridge.contract.embeddings import Vector, to_array
from broker_bridge.registry.identities.documents import FLOAT32_HEADER
from broker_bridge.registry.mongo.client import Document

from .centroid import FaceCentroid
from .model import Box, CameraRecord, DetectedPerson, VisitSegment


def counters_to_document(person: DetectedPerson) -> Document:
    """Return the fields that only the tracker writes."""
    return {
        "site_id": person.site_id,
        "last_seen": person.last_seen,
        "cameras": [
            {
                "device_id": device_id,
                "detections": camera.detections,
                "height": camera.height,
                "width": camera.width,
                "first_seen": camera.first_seen,
                "last_seen": camera.last_seen,
                "box": list(camera.box),
            }
            for device_id, camera in person.cameras.items()
        ],
        "face_quality": person.face_quality,
        "quality_scores": list(person.quality_scores),
        "total_appearances": person.total_appearances,
        "total_detections": person.total_detections,
    }


def person_to_document(person: DetectedPerson) -> Document:
    return {
        "_id": person.global_id,
        "first_seen": person.first_seen,
        **counters_to_document(person),
        "user_id": person.user_id,
        "linked_by": person.linked_by,
        "linked_before": list(person.linked_before),
        "not_users": list(person.not_users),
        "assigned_name": person.assigned_name,
        "merged_into": person.merged_into,
        "created_at": person.created_at,
        "updated_at": person.updated_at,
    }


def person_from_document(document: Any) -> DetectedPerson:
    person = DetectedPerson(
        global_id=document["_id"],
        site_id=document["site_id"],
        first_seen=document["first_seen"],
        last_seen=document["last_seen"],
        cameras={
            camera["device_id"]: CameraRecord(
                camera["detections"],
                camera["height"],
                camera["width"],
                camera["first_seen"],
                camera["last_seen"],
                Box(*camera["box"]),
            )
            for camera in document["cameras"]
        },
        user_id=document["user_id"],
        linked_by=document["linked_by"],
        linked_before=tuple(document["linked_before"]),
        not_users=tuple(document["not_users"]),
        assigned_name=document["assigned_name"],
        merged_into=document["merged_into"],
        face_quality=document["face_quality"],
        total_appearances=document["total_appearances"],
        total_detections=document["total_detections"],
        created_at=document["created_at"],
        updated_at=document["updated_at"],
    )
    person.quality_scores.extend(document["quality_scores"])
    return person


def centroid_to_document(global_id: int, centroid: FaceCentroid) -> Document:
    return {
        "_id": f"{global_id} {centroid.space}",
        "person": global_id,
        "space": centroid.space,
        "vector": Binary(FLOAT32_HEADER + centroid.unit.astype("<f4").tobytes(), VECTOR_SUBTYPE),
        "consistency": centroid.centroid_norm,
        "weight": centroid.weight,
    }


def centroid_from_document(document: Any) -> FaceCentroid:
    return FaceCentroid.restored(
        document["space"], vector_of(document["vector"]), document["consistency"], document["weight"]
    )


def vector_of(binary: bytes) -> Vector:
    """Return the float32[d] of a BSON vector."""
    return np.asarray(to_array(bytes(binary)[len(FLOAT32_HEADER) :]), dtype=np.float32)


def segment_to_document(segment: VisitSegment) -> Document:
    return {
        "_id": f"{segment.global_id} {segment.device_id} {int(segment.since.timestamp() * 1000)}",
        "person": segment.global_id,
        "device_id": segment.device_id,
        "site_id": segment.site_id,
        "since": segment.since,
        "until": segment.until,
        "detections": segment.detections,
    }


def segment_from_document(document: Any) -> VisitSegment:
    return VisitSegment(
        document["person"],
        document["device_id"],
        document["site_id"],
        document["since"],
        document["until"],
        document["detections"],
    )
