"""The gallery: best per person, margin over the second person, and what a broken vector does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract.embeddings import EmbeddingSpace
from device.vision.gallery import Gallery, GalleryHolder

SPACE = EmbeddingSpace("face:test", 4)


def unit(*rows):
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_best_of_a_persons_templates_counts_and_the_margin_is_over_another_person():
    """A second template of the same person does not make the margin small."""
    gallery = Gallery(
        SPACE, ["EMP-2", "EMP-1", "EMP-2"], unit([1, 0, 0, 0], [0, 1, 0, 0], [1, 0.1, 0, 0]), version=9
    )
    match = gallery.match(unit([1, 0.1, 0, 0]))[0]
    assert match is not None
    assert match.user_id == "EMP-2"
    assert match.similarity == pytest.approx(1.0, abs=1e-6)
    assert match.distance == pytest.approx(0.0, abs=1e-6)
    assert match.margin == pytest.approx(1.0 - 0.1 / np.hypot(1, 0.1), abs=1e-6)
    assert (len(gallery), gallery.version, gallery.people) == (3, 9, ("EMP-2", "EMP-1"))


def test_an_empty_gallery_knows_nobody():
    """One None per face."""
    assert Gallery.empty(SPACE).match(unit([1, 0, 0, 0], [0, 1, 0, 0])) == [None, None]


def test_a_single_person_has_the_margin_to_an_opposite_one():
    """similarity + 1, so that a minimum margin does not lock out a gallery of one."""
    match = Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0])).match(unit([1, 1, 0, 0]))[0]
    assert match is not None
    assert match.margin == pytest.approx(match.similarity + 1)


def test_a_zero_or_nan_query_matches_nobody_and_spoils_no_neighbour():
    """A flat picture or a broken network gives no name."""
    gallery = Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0]))
    queries = np.array([[0, 0, 0, 0], [np.nan, 0, 0, 0], [1, 0, 0, 0]], dtype=np.float32)
    assert [match and match.user_id for match in gallery.match(queries)] == [None, None, "EMP-1"]


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((1, 4), np.float32),
        np.full((1, 4), np.nan, np.float32),
        np.ones((1, 3), np.float32),
        np.array([[1, 0, 0, 0]], np.float64),
        np.array([[2, 0, 0, 0]], np.float32),
    ],
)
def test_a_gallery_refuses_vectors_that_cannot_be_compared(vectors):
    """Wrong shape, wrong type, zero, NaN or not of unit length."""
    with pytest.raises(ValueError, match="gallery"):
        Gallery(SPACE, ["EMP-1"], vectors)


def test_only_a_gallery_of_the_same_space_can_be_swapped_in():
    """Vectors of two spaces are never compared."""
    holder = GalleryHolder(Gallery.empty(SPACE))
    full = Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0]), version=2)
    holder.swap(full)
    assert holder.current is full
    with pytest.raises(ValueError, match="face:other"):
        holder.swap(Gallery.empty(EmbeddingSpace("face:other", 4)))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 2**31 - 1))
def test_matching_equals_a_search_by_hand(owners, seed):
    """Whatever the order of rows, the answer is the plain maximum over people."""
    random = np.random.default_rng(seed)
    vectors = unit(*random.standard_normal((len(owners), 4)))
    query = unit(random.standard_normal(4))
    match = Gallery(SPACE, [f"EMP-{owner}" for owner in owners], vectors).match(query)[0]
    best = {}
    for owner, similarity in zip(owners, vectors @ query[0], strict=True):
        best[f"EMP-{owner}"] = max(best.get(f"EMP-{owner}", -1.0), float(similarity))
    ranked = [*sorted(best.values(), reverse=True), -1.0]
    assert match is not None
    assert best[match.user_id] == pytest.approx(ranked[0], abs=1e-5)
    assert match.similarity == pytest.approx(ranked[0], abs=1e-5)
    assert match.margin == pytest.approx(ranked[0] - ranked[1], abs=1e-5)
