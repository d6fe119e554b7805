"""Photos of one identity that do not look like each other are named."""

import numpy as np
import pytest

from broker_bridge.contract.embeddings import normalise
from dashboard_api.identities.photo_warnings import NamedVector, find_disagreements


def at(degrees):
    """Return the unit vector in this direction of a plane."""
    angle = np.radians(degrees)
    return normalise([np.cos(angle), np.sin(angle), 0.0, 0.0], 4)


def judge(degrees, stored=(), look_alike=0.7):
    photos = [NamedVector(f"{place}.jpg", at(one)) for place, one in enumerate(degrees, start=1)]
    found = find_disagreements(photos, [at(one) for one in stored], look_alike)
    assert len(found) == len(photos)
    return [sentence is not None for sentence in found]


@pytest.mark.parametrize(
    ("degrees", "stored", "named"),
    [
        ([], [], []),
        ([0], [], [False]),
        ([0], [90], [True]),
        ([0], [90, 10], [False]),
        ([0], [0, 90], [True]),
        ([0, 10, 20], [], [False, False, False]),
        ([0, 10, 90], [], [False, False, True]),
        ([0, 90], [], [True, True]),
        ([0, 90], [80], [True, False]),
        ([0, 40, 80], [], [False, False, False]),
        ([0, 0], [], [False, False]),
        ([0, 180], [], [True, True]),
    ],
    ids=str,
)
def test_a_photo_that_resembles_no_other_is_named(degrees, stored, named):
    """New and stored photos count; a stored copy of a new photo is no other photo."""
    assert judge(degrees, stored) == named


def test_the_limit_is_that_of_the_space():
    """In a squeezed space strangers have a similarity of 0.87."""
    assert judge([0, 30], look_alike=0.85) == [False, False]
    assert judge([0, 30], look_alike=0.93) == [True, True]


def test_the_sentence_names_the_nearest_photo():
    """It says how similar that is, and what to do."""
    photos = [NamedVector("a.jpg", at(0)), NamedVector("b.jpg", at(60)), NamedVector("c.jpg", at(170))]
    first, _, last = find_disagreements(photos, [], 0.7)
    assert first is not None
    assert "nearest: b.jpg, similarity 0.50" in first
    assert "check that it is the same person" in first
    assert last is not None
    (against_stored,) = find_disagreements(photos[:1], [at(120)], 0.7)
    assert against_stored is not None
    assert "enrolled already" in against_stored
