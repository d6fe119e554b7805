"""A gallery shows by itself whether its limits keep people apart."""

import time

import numpy as np
import pytest

from device.recognition.gallery_pairs import GalleryPairs, compare_pairs

DIMENSION = 64


def people(count: int, cosine: float, seed: int = 1, templates: int = 1) -> tuple[list[str], np.ndarray]:
    """Return a gallery whose people have about this cosine."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=4 * DIMENSION)
    shared /= np.linalg.norm(shared)
    ids, rows = [], []
    for n in range(count):
        own = random.normal(size=4 * DIMENSION)
        own -= (own @ shared) * shared
        own /= np.linalg.norm(own)
        for _ in range(templates):
            noise = random.normal(size=4 * DIMENSION) * 0.1 / np.sqrt(4 * DIMENSION)
            rows.append(np.sqrt(cosine) * shared + np.sqrt(1 - cosine) * own + noise)
            ids.append(f"EMP-{n}")
    matrix = np.array(rows, dtype=np.float32).reshape(len(rows), 4 * DIMENSION)
    return ids, matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 10, 17, 60, 500])
def test_limits_of_another_model_are_seen_from_three_people_on(count: int) -> None:
    """A space with a cosine of 0.85 between people, matched within a distance of 0.35."""
    ids, vectors = people(count, 0.85)
    unfit = compare_pairs(ids, vectors, 0.35)
    assert (unfit.share, unfit.is_too_many) == (1.0, True)
    fit = compare_pairs(ids, vectors, 0.06)
    assert (fit.within, fit.is_too_many) == (0, False)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_people_are_no_evidence(count: int) -> None:
    """Two people may be twins."""
    ids, vectors = people(count, 0.85)
    pairs = compare_pairs(ids, vectors, 0.35)
    assert (pairs.people, pairs.pairs, pairs.is_too_many) == (count, count * (count - 1) // 2, False)


@pytest.mark.parametrize("count", [3, 4, 5, 8, 17, 100])
def test_twins_and_second_enrollments_are_no_evidence(count: int) -> None:
    """Up to half of the people have another within the distance."""
    ids, vectors = people(count, 0.05)
    doubled = vectors.copy()
    doubled[1::2] = vectors[: len(vectors) // 2 * 2 : 2]
    pairs = compare_pairs(ids, doubled, 0.35)
    assert pairs.within == count // 2
    assert not pairs.is_too_many


@pytest.mark.parametrize(("count", "copies"), [(5, 3), (8, 3), (17, 5), (40, 6)])
def test_a_visitor_who_was_enrolled_several_times_is_no_evidence(count: int, copies: int) -> None:
    ids, vectors = people(count, 0.05)
    vectors[1:copies] = vectors[0]
    assert not compare_pairs(ids, vectors, 0.35).is_too_many


@pytest.mark.parametrize(
    ("people_count", "within", "too_many"), [(17, 19, False), (17, 20, True), (200, 1146, True)]
)
def test_a_considerable_share_is_enough(people_count: int, within: int, too_many: bool) -> None:
    """It need not be all pairs: a stranger finds one of many people."""
    pairs = people_count * (people_count - 1) // 2
    assert GalleryPairs(people_count, pairs, within).is_too_many == too_many


def test_templates_of_one_person_are_no_pair() -> None:
    """Of two people the nearest templates count, as in a match."""
    ids, vectors = people(4, 0.5, templates=5)
    pairs = compare_pairs(ids, vectors, 0.2)
    assert (pairs.people, pairs.pairs, pairs.within) == (4, 6, 0)
    assert compare_pairs(ids[::-1], vectors[::-1], 0.6).within == 6


def test_rows_that_are_no_unit_vectors_are_left_out() -> None:
    """A bit flip on the disk makes no pair."""
    ids, vectors = people(5, 0.05)
    vectors[0], vectors[1] = np.nan, 1e9
    assert compare_pairs(ids, vectors, 0.35).within == 0


def test_the_work_is_bounded() -> None:
    """Of 20,000 people a sample is compared, always the same one."""
    vectors = np.random.default_rng(3).normal(size=(20_000, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"EMP-{n}" for n in range(len(vectors))]
    started = time.process_time()
    first = compare_pairs(ids, vectors, 0.5)
    assert time.process_time() - started < 1.0
    assert (first.people, first.pairs) == (200, 19_900)
    assert compare_pairs(ids, vectors, 0.5) == first
