"""Detected persons, how they are known, and their trails, as MongoDB keeps them."""

from typing import Any

import numpy as np
from bson.binary import VECTOR_SUBTYPE, Binary

from broker_bridge.contract.embeddings import Vector, to_array
from broker_bridge.registry.identities.documents import FLOAT32_HEADER
from broker_bridge.registry.mongo.client import Document

from .centroid import FaceCentroid
from .model import Box, CameraRecord, DetectedPerson, VisitSegment


def counted(person: DetectedPerson) -> Document:
    """What is the tracker's to write."""
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
        **counted(person),
        "user_id": person.user_id,
        "linked_by": person.linked_by,
        "linked_before": list(person.linked_before),
        "not_users": list(person.not_users),
        "assigned_name": person.assigned_name,
        "merged_into": person.merged_into,
        "created_at": person.created_at,
        "updated_at": person.updated_at,
    }


def person_from_document(found: Any) -> DetectedPerson:
    person = DetectedPerson(
        global_id=found["_id"],
        site_id=found["site_id"],
        first_seen=found["first_seen"],
        last_seen=found["last_seen"],
        cameras={
            one["device_id"]: CameraRecord(
                one["detections"],
                one["height"],
                one["width"],
                one["first_seen"],
                one["last_seen"],
                Box(*one["box"]),
            )
            for one in found["cameras"]
        },
        user_id=found["user_id"],
        linked_by=found["linked_by"],
        linked_before=tuple(found["linked_before"]),
        not_users=tuple(found["not_users"]),
        assigned_name=found["assigned_name"],
        merged_into=found["merged_into"],
        face_quality=found["face_quality"],
        total_appearances=found["total_appearances"],
        total_detections=found["total_detections"],
        created_at=found["created_at"],
        updated_at=found["updated_at"],
    )
    person.quality_scores.extend(found["quality_scores"])
    return person


def face_to_document(global_id: int, face: FaceCentroid) -> Document:
    return {
        "_id": f"{global_id} {face.space}",
        "person": global_id,
        "space": face.space,
        "vector": Binary(FLOAT32_HEADER + face.unit.astype("<f4").tobytes(), VECTOR_SUBTYPE),
        "consistency": face.centroid_norm,
        "weight": face.weight,
    }


def face_from_document(found: Any) -> FaceCentroid:
    return FaceCentroid.restored(
        found["space"], vector_of(found["vector"]), found["consistency"], found["weight"]
    )


def vector_of(binary: bytes) -> Vector:
    """The float32[d] in a BSON vector."""
    return np.asarray(to_array(bytes(binary)[len(FLOAT32_HEADER) :]), dtype=np.float32)


def segment_to_document(stay: VisitSegment) -> Document:
    return {
        "_id": f"{stay.global_id} {stay.device_id} {int(stay.since.timestamp() * 1000)}",
        "person": stay.global_id,
        "device_id": stay.device_id,
        "site_id": stay.site_id,
        "since": stay.since,
        "until": stay.until,
        "detections": stay.detections,
    }


def segment_from_document(found: Any) -> VisitSegment:
    return VisitSegment(
        found["person"],
        found["device_id"],
        found["site_id"],
        found["since"],
        found["until"],
        found["detections"],
    )
