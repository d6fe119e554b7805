"""The centroid of a person: a mean whose norm measures how much the faces agree."""

import numpy as np
import pytest

from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from tests.tracking_samples import SPACE, Faces


def test_the_product_with_the_mean_is_the_mean_cosine() -> None:
    faces = Faces()
    person = faces.person()
    seen = [faces.of(person) for _ in range(7)]
    known = FaceCentroid.from_vector(SPACE, seen[0], 0.5)
    for face in seen[1:]:
        known.learn(face, 0.5)
    query = faces.of(person)
    assert known.similarity(query) == pytest.approx(np.mean([face @ query for face in seen]), abs=1e-5)


def test_better_faces_count_for_more() -> None:
    faces = Faces()
    good, poor = faces.person(), faces.person()
    known = FaceCentroid.from_vector(SPACE, good, 0.9)
    known.learn(poor, 0.3)
    assert known.similarity(good) == pytest.approx(0.75 + 0.25 * float(good @ poor), abs=1e-5)


def test_one_face_is_consistent_and_different_ones_are_less() -> None:
    faces = Faces()
    person = faces.person()
    known = FaceCentroid.from_vector(SPACE, faces.of(person), None)
    assert known.centroid_norm == pytest.approx(1.0)
    for _ in range(200):
        known.learn(faces.of(person), None)
    assert known.centroid_norm == pytest.approx(0.835, abs=0.02)
    assert float(known.unit @ person) > 0.97


def test_old_faces_fade() -> None:
    """A face that changed for good moves the centroid after a while."""
    faces = Faces()
    before, after = faces.person(), faces.person()
    known = FaceCentroid.from_vector(SPACE, before, 1.0)
    for _ in range(500):
        known.learn(before, 1.0)
    for _ in range(150):
        known.learn(after, 1.0)
    assert known.similarity(after) > 0.9


def test_what_is_restored_is_the_same() -> None:
    faces = Faces()
    person = faces.person()
    known = FaceCentroid.from_vector(SPACE, faces.of(person), 0.7)
    known.learn(faces.of(person), 0.7)
    again = FaceCentroid.restored(SPACE, known.unit, known.centroid_norm, known.weight)
    assert np.allclose(again.mean, known.mean, atol=1e-6)
    assert not again.has_moved(known)
    again.learn(faces.of(person), 0.7)
    assert again.has_moved(known)
