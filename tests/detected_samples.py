"""Write detected persons to MongoDB as the tracker does."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from broker_bridge.contract.embeddings import Vector, normalise, to_array
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import Box, DetectedPerson, ObservedFace, VisitSegment

TIMEOUT = timedelta(seconds=30)


def face_vector(seed: int, dimension: int = 8) -> Vector:
    """A face of its own for each `seed`: float32[dimension] of unit length."""
    return to_array(normalise(np.random.default_rng(seed).standard_normal(dimension), dimension))


def seen(
    device_id: str,
    at: datetime,
    *,
    box: Sequence[float] = (100.0, 150.0, 100.0, 250.0),
    site_id: str = "lobby",
    face: Vector | None = None,
    quality: float | None = 0.8,
    space: str = "face:test-8",
) -> ObservedFace:
    """`box` is x, y, width, height."""
    vector = face_vector(1) if face is None else face
    return ObservedFace(device_id, site_id, "face_0", Box(*box), space, vector, quality, at, at)


async def write_person(
    registry: Registry, observations: Sequence[ObservedFace], *, user_id: str | None = None
) -> int:
    """Write a new detected person with face and trail; return its global id."""
    first = observations[0]
    (global_id,) = await registry.tracker_store.take_ids(1)
    person = DetectedPerson.create(global_id, first, user_id)
    stays: dict[str, VisitSegment] = {}
    for one in observations:
        person.count_sighting(one, TIMEOUT)
        stay = VisitSegment(global_id, one.device_id, one.site_id, one.seen_at, one.seen_at)
        stays.setdefault(one.device_id, stay).until = one.seen_at
    await registry.tracker_store.create(
        [(person, FaceCentroid.from_vector(first.space, first.vector, first.quality))]
    )
    await registry.tracker_store.write_segments(list(stays.values()))
    return global_id
