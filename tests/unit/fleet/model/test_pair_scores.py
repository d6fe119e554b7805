"""Pairs and searches, against loops over all faces."""

from itertools import combinations, permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import SpaceLimits
from device.vision.gallery import Gallery
from fleet.model.measures.pair_scores import score_against, score_listed, score_pairs
from fleet.model.measures.searches import search_all

SUBJECTS = np.array([0, 0, 0, 1, 2, 2, 3], dtype=np.int32)


def unit_vectors(count: int, seed: int = 0, dimension: int = 8) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def limits(distance: float, margin: float) -> SpaceLimits:
    return SpaceLimits(
        distance=distance,
        margin=margin,
        same_person=0.9,
        look_alike=0.8,
        tracked_similarity=0.8,
        tracked_margin=0.1,
        tracked_by_position=0.7,
    )


def test_every_pair_of_two_faces_is_scored_once() -> None:
    vectors = unit_vectors(len(SUBJECTS))
    scores = score_pairs(vectors, SUBJECTS)
    same = [pair for pair in combinations(range(7), 2) if SUBJECTS[pair[0]] == SUBJECTS[pair[1]]]
    other = [pair for pair in combinations(range(7), 2) if SUBJECTS[pair[0]] != SUBJECTS[pair[1]]]
    assert scores.genuine.tolist() == pytest.approx([float(vectors[i] @ vectors[j]) for i, j in same])
    assert scores.impostor.tolist() == pytest.approx([float(vectors[i] @ vectors[j]) for i, j in other])
    assert scores.genuine_subjects.tolist() == [SUBJECTS[i] for i, _ in same]
    assert scores.impostor_subjects.tolist() == [[SUBJECTS[i], SUBJECTS[j]] for i, j in other]
    assert (scores.impostor_pairs, scores.is_complete) == (len(other), True)


def test_an_enrolled_photo_is_compared_with_every_other_photo_at_a_camera() -> None:
    """The camera's picture of the same photo is left out: it would match."""
    probes, references = unit_vectors(7, 1), unit_vectors(7, 2)
    scores = score_against(probes, references, SUBJECTS)
    pairs = list(permutations(range(7), 2))
    expected = [float(probes[i] @ references[j]) for i, j in pairs if SUBJECTS[i] == SUBJECTS[j]]
    assert sorted(scores.genuine.tolist()) == pytest.approx(sorted(expected))
    assert scores.impostor_pairs == len(scores.impostor) == len(pairs) - len(expected)


def test_too_many_impostor_pairs_are_drawn_at_random() -> None:
    subjects = np.arange(300, dtype=np.int32) // 2
    scores = score_pairs(unit_vectors(300), subjects, most=2000)
    assert len(scores.genuine) == 150
    assert scores.impostor_pairs == 300 * 299 // 2 - 150
    assert 1700 < len(scores.impostor) < 2300
    assert not scores.is_complete


def test_listed_pairs_are_scored_in_their_order() -> None:
    vectors = unit_vectors(4)
    pairs = np.array([[0, 3], [2, 1]], dtype=np.int32)
    scores = score_listed(vectors, np.array([0, 1, 1, 0], dtype=np.int32), pairs, pairs[:1])
    assert scores.genuine.tolist() == pytest.approx(
        [float(vectors[0] @ vectors[3]), float(vectors[2] @ vectors[1])]
    )
    assert scores.genuine_subjects.tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("distance", "margin"), [(0.3, 0.0), (0.6, 0.05), (1.5, 0.2)])
def test_a_search_ends_as_in_the_gallery_of_a_camera(seed: int, distance: float, margin: float) -> None:
    """For each face a gallery without it, and one without its person, decide the same."""
    subjects = np.sort(np.random.default_rng(seed).integers(0, 5, 14)).astype(np.int32)
    vectors = unit_vectors(14, seed, dimension=4)
    space = EmbeddingSpace("face:test", 4)
    counts = dict.fromkeys(("right", "wrong", "unknown", "taken", "refused"), 0)
    hits = 0
    for row in range(14):
        others = np.arange(14) != row
        strangers = subjects != subjects[row]
        for kept, is_enrolled in ((others, True), (strangers, False)):
            if is_enrolled and not (subjects[kept] == subjects[row]).any():
                continue
            gallery = Gallery(space, [str(subject) for subject in subjects[kept]], vectors[kept])
            match = gallery.match(vectors[row : row + 1], floor=-1.0)[0]
            assert match is not None
            accepted = match.distance <= distance and match.margin >= margin
            is_right = match.user_id == str(subjects[row])
            hits += is_enrolled and is_right
            if is_enrolled:
                counts["unknown" if not accepted else "right" if is_right else "wrong"] += 1
            else:
                counts["taken" if accepted else "refused"] += 1
    searches = search_all(vectors, vectors, subjects)
    assert vars(searches.outcome(limits(distance, margin))) == counts
    assert int(searches.hits.sum()) == hits


def test_a_tie_with_another_person_is_no_hit() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8]], dtype=np.float32)
    searches = search_all(vectors, vectors, np.array([0, 0, 1], dtype=np.int32))
    assert searches.hits.tolist() == [False, True, False]
    assert searches.has_own.tolist() == [True, True, False]
