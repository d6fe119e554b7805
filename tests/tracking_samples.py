"""Synthetic faces, and the observations that cameras make of them."""

from datetime import datetime, timedelta, timezone

import numpy as np

from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.detected_persons.model import Box, ObservedFace
from fleet.tracks.faces import to_cosine

SPACE = "face:test-512"
BEGAN = datetime(2026, 1, 15, 10, tzinfo=timezone.utc)


def at(seconds: float) -> datetime:
    """Return the time `seconds` after BEGAN."""
    return BEGAN + timedelta(seconds=seconds)


class Faces:
    """Vectors float32[512] of unit length with ArcFace's similarities.

    Two vectors of one person have a cosine of 0.6 to 0.8, of two persons about 0.
    """

    def __init__(self, seed: int = 1) -> None:
        self.random = np.random.default_rng(seed)

    def person(self) -> Vector:
        """Return the centre of a person's faces."""
        return unit(self.random.standard_normal(512))

    def like(self, face: Vector, cosine: float) -> Vector:
        """Return a vector at exactly this cosine to `face`, random otherwise."""
        return to_cosine(face[np.newaxis], cosine, self.random.standard_normal((1, 512)))[0]

    def of(self, person: Vector) -> Vector:
        """Return one more face of a person."""
        return self.like(person, float(np.sqrt(self.random.uniform(0.6, 0.8))))


def unit(values: Vector) -> Vector:
    return (values / np.linalg.norm(values)).astype(np.float32)


def observed(
    vector: Vector,
    *,
    camera: str = "cam-001",
    site: str = "lobby",
    track: str = "face_0",
    box: Box = Box(100, 150, 100, 250),
    at: float = 0.0,
    quality: float | None = 0.9,
    captured: float | None = None,
    space: str = SPACE,
) -> ObservedFace:
    """Return an observation `at` seconds after BEGAN.

    `captured` is the camera's clock if that differs.
    """
    return ObservedFace(
        device_id=camera,
        site_id=site,
        track_id=track,
        box=box,
        space=space,
        vector=vector,
        quality=quality,
        captured_at=BEGAN + timedelta(seconds=at if captured is None else captured),
        seen_at=BEGAN + timedelta(seconds=at),
    )
