"""Score the pairs of faces: genuine pairs of one subject, impostor pairs of two.

The words are those of ISO/IEC 19795-1: a subject is a person of the test, a comparison score is here the
cosine similarity.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Subjects = NDArray[np.int32]
"""int32[n], the subject of each face, counted from 0."""

MOST_IMPOSTOR_PAIRS = 1_000_000
_ROWS = 512


@dataclass(frozen=True)
class PairScores:
    """Cosines of pairs.

    `genuine` is float32[g] with `genuine_subjects` int32[g], `impostor` is float32[i] with the subjects
    of both faces, int32[i, 2]. There are `impostor_pairs` pairs; `impostor` is a part of them, drawn at
    random, if they are more than MOST_IMPOSTOR_PAIRS.
    """

    genuine: Float32
    genuine_subjects: Subjects
    impostor: Float32
    impostor_subjects: Subjects
    impostor_pairs: int
    is_each_way: bool = False
    """Whether two photos are compared twice, the camera's of each with the enrolled one of the other."""

    @property
    def is_complete(self) -> bool:
        """Whether `impostor` has every impostor pair."""
        return len(self.impostor) == self.impostor_pairs


def score_pairs(vectors: Float32, subjects: Subjects, *, most: int = MOST_IMPOSTOR_PAIRS) -> PairScores:
    """Return the scores of all pairs of two faces.

    `vectors` is float32[n, d] of unit length. Impostor pairs are drawn at random if there are more than
    `most`.
    """
    return _score(vectors, vectors, subjects, _ordered_impostors(subjects) // 2, most)


def score_against(
    probes: Float32, references: Float32, subjects: Subjects, *, most: int = MOST_IMPOSTOR_PAIRS
) -> PairScores:
    """Return the scores of every probe against every reference of another photo.

    Row i of `probes` and of `references`, float32[n, d], are made of photo i in two ways.
    """
    return _score(probes, references, subjects, _ordered_impostors(subjects), most)


def _ordered_impostors(subjects: Subjects) -> int:
    counts = np.bincount(subjects).astype(np.int64)
    return len(subjects) ** 2 - int((counts**2).sum())


def score_listed(
    vectors: Float32, subjects: Subjects, genuine: NDArray[np.int32], impostor: NDArray[np.int32]
) -> PairScores:
    """Return the scores of listed pairs, int32[g, 2] and int32[i, 2] of rows."""

    def cosines(pairs: NDArray[np.int32]) -> Float32:
        products = np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
        return np.asarray(np.clip(products, -1, 1), dtype=np.float32)

    return PairScores(
        cosines(genuine), subjects[genuine[:, 0]], cosines(impostor), subjects[impostor], len(impostor)
    )


def _score(first: Float32, second: Float32, subjects: Subjects, total: int, most: int) -> PairScores:
    random = np.random.default_rng(0)
    each_way = first is not second
    share = min(1.0, most / total) if total else 1.0
    genuine, genuine_subjects, impostor, impostor_subjects = [], [], [], []
    for rows, cosines in cosine_rows(first, second):
        columns = np.arange(len(subjects))
        counted = columns != rows[:, None] if each_way else columns > rows[:, None]
        same = subjects[rows][:, None] == subjects
        genuine.append(cosines[counted & same])
        genuine_subjects.append(subjects[rows[np.nonzero(counted & same)[0]]])
        different = counted & ~same
        if share < 1:
            different &= random.random(different.shape) < share
        left, right = np.nonzero(different)
        impostor.append(cosines[left, right])
        impostor_subjects.append(np.stack([subjects[rows[left]], subjects[right]], axis=1))
    if not genuine:
        nothing = np.empty(0, dtype=np.float32)
        return PairScores(nothing, np.empty(0, np.int32), nothing, np.empty((0, 2), np.int32), 0)
    return PairScores(
        np.concatenate(genuine),
        np.concatenate(genuine_subjects),
        np.concatenate(impostor),
        np.concatenate(impostor_subjects),
        total,
        each_way,
    )


def cosine_rows(first: Float32, second: Float32) -> Iterator[tuple[NDArray[np.int64], Float32]]:
    """Yield rows of `first` and their cosines to all of `second`, in blocks."""
    for begin in range(0, len(first), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(first)))
        yield rows, np.clip(first[rows] @ second.T, -1, 1)
